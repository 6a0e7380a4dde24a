#!/usr/bin/env bash
# One command for a machine with a CUDA device: build there, test on the device, sanitize, benchmark, one table.
#
#   bench/device.sh [OUTPUT_FOLDER]
#
# Needs nvcc, CMake, a C++ compiler, and a Python with torch (CUDA), pybind11, pytest, pytest-benchmark and the package's
# own dependencies (wheels on PYTHONPATH will do). compute-sanitizer is used where it is found. Exits non-zero when a
# test, a sanitizer or a benchmark's answer fails; the table is printed all the same.
set -uo pipefail
cd "$(dirname "$0")/.."
output=${1:-bench-device}
mkdir -p "$output"
python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin" OMP_WAIT_POLICY=passive
export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}"
failed=0

run() {
  local name=$1
  shift
  printf '== %s\n' "$name"
  local begin=$SECONDS
  "$@" >"$output/$name.log" 2>&1
  local status=$?
  [ $status -eq 0 ] || { failed=1; tail -n 40 "$output/$name.log"; }
  printf '%-12s %s (%d s)\n' "$name" "$([ $status -eq 0 ] && echo passed || echo "FAILED ($status)")" \
    $((SECONDS - begin)) | tee -a "$output/summary.txt"
}

build() {
  cmake -S . -B build-device -DT3SSFAST_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
    -DPython_EXECUTABLE="$(command -v "$python")" &&
    cmake --build build-device -j &&
    cmake --install build-device --prefix python
}

rm -f "$output/summary.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$output/device.txt"
run build build
run import "$python" -c 'import t3ssfast, pprint; pprint.pprint(t3ssfast.build_info())'
run tests "$python" -m pytest -q -p no:cacheprovider -m gpu tests

sanitizer=$(command -v compute-sanitizer || "$python" -c 'import nvidia.cuda_sanitizer_api as p; print(next(iter(p.__path__)) + "/bin/compute-sanitizer")' 2>/dev/null)
if [ -n "$sanitizer" ] && [ -x "$sanitizer" ]; then
  # PyTorch's caching allocator hides overruns inside one block from memcheck; without the cache every tensor is its own.
  for tool in memcheck racecheck initcheck; do
    run "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "$python" -m pytest -q -x -p no:cacheprovider -m gpu tests -k "small"
  done
else
  echo "compute-sanitizer not found: skipped" | tee -a "$output/summary.txt"
fi

run bench "$python" -m pytest -q -p no:cacheprovider bench/bench_device.py --benchmark-only \
  --benchmark-json="$output/bench.json"
"$python" bench/table.py "$output/bench.json" | tee "$output/table.md"
exit $failed
