#!/usr/bin/env bash
# One command for a machine with a CUDA device: build for it, test on it, sanitize, benchmark, one dated table.
#
#   bench/device.sh [OUTPUT_FOLDER]
#
# Needs nvcc, CMake, a C++ compiler, and a Python (PYTHON, default python3) with torch for CUDA, numpy, scipy,
# pybind11, pytest, pytest-timeout and hypothesis; wheels on PYTHONPATH will do. What is said of a whole detection
# needs connected-components-3d and mrcfile, too. compute-sanitizer is used where it is
# found: on PATH, in the CUDA toolkit, or from the wheel nvidia-cuda-sanitizer-api. A step that fails or is missing is
# told in summary.txt and does not stop the others; all together take at most T3SSFAST_DEVICE_SECONDS (540), the
# sanitizers, which take most, last. T3SSFAST_DEVICE_STEPS="build tests" runs some of: build tests bench sanitize.
# Exits with 1 when a step fails, with 2 when there is nothing to run it on.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
output=${1:-bench-device}
steps=" ${T3SSFAST_DEVICE_STEPS:-build tests bench sanitize} "
deadline=$((SECONDS + ${T3SSFAST_DEVICE_SECONDS:-540}))
python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin" OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
export PYTHONPATH="$PWD/python:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}"
failed=0
mkdir -p "$output" || exit 2
: >"$output/summary.txt"

say() { printf '%s\n' "$*" | tee -a "$output/summary.txt"; }

stop() {
  say "$*"
  exit 2
}

# run NAME SECONDS COMMAND...: its output goes to NAME.log, the end of it here if it fails.
run() {
  local name=$1 limit=$2 begin=$SECONDS left=$((deadline - SECONDS)) status word
  shift 2
  if [ $left -lt 10 ]; then
    failed=1
    say "$(printf '%-12s not run: the time is up' "$name")"
    return 1
  fi
  [ $left -ge "$limit" ] || limit=$left
  timeout -k 10 "$limit" "$@" >"$output/$name.log" 2>&1
  status=$?
  case $status in
    0) word=passed ;;
    124 | 137) word="FAILED: not done after $limit s" ;;
    *) word="FAILED ($status)" ;;
  esac
  [ $status -eq 0 ] || {
    failed=1
    tail -n 40 "$output/$name.log"
  }
  say "$(printf '%-12s %s (%d s)' "$name" "$word" $((SECONDS - begin)))"
  return $status
}

has() { [[ $steps == *" $1 "* ]]; }

missing=$("$python" - <<'PYTHON'
import importlib.util as u
print(" ".join(m for m in ("torch", "numpy", "scipy", "pybind11", "pytest", "pytest_timeout", "hypothesis") if u.find_spec(m) is None))
PYTHON
) || stop "$python cannot be run; set PYTHON to a Python 3.10 or newer."
[ -z "$missing" ] || stop "$python lacks: $missing; install them, or put their wheels on PYTHONPATH."
"$python" -c 'import cc3d, mrcfile' 2>/dev/null ||
  say "connected-components-3d or mrcfile is missing: the test and the benchmark of a whole detection will fail"

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  stop "PyTorch of $python finds no CUDA device; run this on a machine that has one."
"$python" - <<'PYTHON' | tee "$output/device.txt"
import torch
p = torch.cuda.get_device_properties(0)
print(f"{p.name}, compute capability {p.major}.{p.minor}, {p.multi_processor_count} multiprocessors, "
      f"{p.total_memory / 2**30:.0f} GiB, L2 {p.L2_cache_size / 2**20:.0f} MiB; torch {torch.__version__}")
PYTHON
nvidia-smi --query-gpu=driver_version,clocks.max.sm,power.limit --format=csv 2>/dev/null | tee -a "$output/device.txt"

if has build; then
  command -v nvcc >/dev/null || stop "nvcc is not on PATH; install the CUDA toolkit, or set PATH."
  command -v cmake >/dev/null || stop "cmake is not on PATH; install it (a wheel will do)."
  generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  architecture=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  options=(-DT3SSFAST_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$architecture-real"
    -DPython_EXECUTABLE="$(command -v "$python")")
  if ! { run configure 60 cmake -S . -B build-device "${generator[@]}" "${options[@]}" &&
    run build 240 cmake --build build-device --parallel &&
    run install 60 cmake --install build-device --prefix python; }; then
    stop "The extension was not built, so nothing else can run; see $output for the logs."
  fi
fi
run import 60 "$python" -c 'import pprint, t3ssfast; i = t3ssfast.build_info(); pprint.pprint(i); assert i["cuda_devices"]' ||
  stop "The extension sees no device; $output/import.log says why."

if has tests; then
  run tests 180 "$python" -m pytest -q -p no:cacheprovider -p no:benchmark -m gpu --durations=5 \
    tests/test_device.py tests/kernels/test_native.py
fi

if has bench; then
  run bench 300 "$python" bench/bench_device.py "$output"
fi
if has sanitize; then
  sanitizer=$(command -v compute-sanitizer || "$python" - <<'PYTHON'
import glob, site, sys
places = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
found = [f for p in places for f in glob.glob(f"{p}/nvidia/cu*/bin/compute-sanitizer")]
found += [f for p in places for f in glob.glob(f"{p}/nvidia/cuda_sanitizer_api/bin/compute-sanitizer")]
print(found[0] if found else "")
PYTHON
  )
  if [ -n "$sanitizer" ]; then
    [ -x "$sanitizer" ] || chmod -R u+x "$(dirname "$sanitizer")/.." 2>/dev/null
    # Of other people's kernels nothing is asked.
    only=()
    "$sanitizer" --help 2>/dev/null | grep -q -- --kernel-name && only=(--kernel-name "kns=t3ssfast")
    # PyTorch's caching allocator hides overruns inside one block from memcheck; without it every tensor is its own.
    for tool in memcheck racecheck initcheck synccheck; do
      run "$tool" 100 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
        "${only[@]}" "$python" -m pytest -q -x -p no:cacheprovider -p no:benchmark -m gpu tests/test_device.py -k tiny
    done
  else
    say "compute-sanitizer  skipped: neither on PATH nor in the wheel nvidia-cuda-sanitizer-api"
  fi
fi

[ ! -f "$output/table.md" ] || cat "$output/table.md"
say "$([ $failed -eq 0 ] && echo "all steps passed" || echo "some step FAILED")"
exit $failed
