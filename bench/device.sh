#!/usr/bin/env bash
# Builds, tests, benchmarks and sanitizes the CUDA kernels on a machine with a CUDA device.
#
#   bench/device.sh [OUTPUT_FOLDER]
#
# The kernels' tests and the sanitizers need a Python (PYTHON, default python3) with torch for CUDA, numpy and pytest,
# installed or on PYTHONPATH; the build also needs nvcc, CMake, a C++ compiler and pybind11. The tests of the pipeline and
# the benchmarks need all dependencies of t3ssfast[test]; where one is missing, they are skipped. compute-sanitizer is
# taken from PATH, the CUDA toolkit, or the wheel nvidia-cuda-sanitizer-api. Failed and skipped steps are reported in
# summary.txt and do not stop the others. All steps together take at most T3SSFAST_DEVICE_SECONDS (540); the sanitizers,
# which take longest, run last. T3SSFAST_DEVICE_STEPS="build tests" selects steps from: build tests pipeline bench
# sanitize. With T3SSFAST_DEVICE_DRY_RUN=1 no device is needed: every test is collected, and skipped. The package is built
# and used in python/, or is in the folder T3SSFAST_DEVICE_PACKAGE. Exits with 1 if a step fails, and with 2 if a
# requirement is missing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
output=${1:-bench-device}
steps=" ${T3SSFAST_DEVICE_STEPS:-build tests pipeline bench sanitize} "
deadline=$((SECONDS + ${T3SSFAST_DEVICE_SECONDS:-540}))
python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin" OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
export PYTHONPATH="${T3SSFAST_DEVICE_PACKAGE:-$PWD/python}:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}"
failed=0
mkdir -p "$output" || exit 2
: >"$output/summary.txt"

say() { printf '%s\n' "$*" | tee -a "$output/summary.txt"; }

stop() {
  say "$*"
  exit 2
}

# run NAME SECONDS COMMAND...: writes output to NAME.log, and prints its end if the command fails.
run() {
  local name=$1 limit=$2 begin=$SECONDS left=$((deadline - SECONDS)) status word
  shift 2
  if [ $left -lt 10 ]; then
    failed=1
    say "$(printf '%-12s not run: out of time' "$name")"
    return 1
  fi
  [ $left -ge "$limit" ] || limit=$left
  timeout -k 10 "$limit" "$@" >"$output/$name.log" 2>&1
  status=$?
  case $status in
    0) word=passed ;;
    124 | 137) word="FAILED: not finished after $limit s" ;;
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

# Names of the modules that cannot be imported.
missing() {
  "$python" - "$@" <<'PYTHON'
import importlib, sys

def is_missing(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return True
    return False

print(" ".join(filter(is_missing, sys.argv[1:])))
PYTHON
}

required=(torch numpy pytest)
has build && required+=(pybind11)
absent=$(missing "${required[@]}") || stop "$python does not run; set PYTHON to Python 3.11 or newer."
[ -z "$absent" ] || stop "$python has no module $absent; install them, or add their wheels to PYTHONPATH."
absent=$(missing scipy mrcfile starfile pandas dynamotable imodmodel cc3d lazy_loader typer rich matplotlib hypothesis \
  pytest_timeout pytest_benchmark sklearn zarr)
if [ -n "$absent" ]; then
  for step in pipeline bench; do
    has $step && say "$(printf '%-12s skipped: no module %s' $step "$absent")"
    steps=${steps/ $step / }
  done
fi

dry=${T3SSFAST_DEVICE_DRY_RUN:-}
[ -n "$dry" ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  stop "PyTorch finds no CUDA device; run this on a machine that has one."
[ -n "$dry" ] || "$python" - <<'PYTHON' | tee "$output/device.txt"
import torch
p = torch.cuda.get_device_properties(0)
print(f"{p.name}, compute capability {p.major}.{p.minor}, {p.multi_processor_count} multiprocessors, "
      f"{p.total_memory / 2**30:.0f} GiB, L2 {p.L2_cache_size / 2**20:.0f} MiB; torch {torch.__version__}")
PYTHON
nvidia-smi --query-gpu=driver_version,clocks.max.sm,power.limit --format=csv 2>/dev/null | tee -a "$output/device.txt"

if has build; then
  command -v nvcc >/dev/null || stop "nvcc is not on PATH; install the CUDA toolkit, or set PATH."
  command -v cmake >/dev/null || stop "cmake is not on PATH; install it, for example with pip."
  generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  architecture=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  options=(-DT3SSFAST_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$architecture-real"
    -DPython_EXECUTABLE="$(command -v "$python")")
  if ! { run configure 60 cmake -S . -B build-device "${generator[@]}" "${options[@]}" &&
    run build 240 cmake --build build-device --parallel &&
    run install 60 cmake --install build-device --prefix python; }; then
    stop "The extension was not built; see the logs in $output."
  fi
fi
# Only pytest itself: no plugins, and the configuration of tests/device.
kernel_tests=(env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$python" -m pytest -q -p no:cacheprovider -m gpu
  -c tests/device/pytest.ini --rootdir . --confcutdir tests/device tests/device/test_kernels_on_device.py)
[ -n "$dry" ] || run import 60 "$python" -c '
import sys, torch
sys.path.insert(0, "python/t3ssfast")  # the extension itself, whatever the package needs
import _core
print(_core.build_info())
assert _core.build_info()["cuda_devices"]' ||
  stop "The extension finds no device; see $output/import.log."

if has tests; then
  run tests 180 "${kernel_tests[@]}" --durations=5
fi
if has pipeline; then
  # One process, as the device is one; pytest-xdist, which the options of pyproject.toml need, may be missing.
  run pipeline 180 "$python" -m pytest -o addopts= -q -p no:cacheprovider -p no:benchmark -m gpu --durations=5 \
    tests/test_device.py tests/models/test_engines.py tests/reliability/test_memory.py
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
    # Check only this package's kernels.
    only=()
    "$sanitizer" --help 2>/dev/null | grep -q -- --kernel-name && only=(--kernel-name "kns=t3ssfast")
    # PyTorch's caching allocator hides overruns within a block from memcheck; without it every tensor is an allocation.
    for tool in memcheck racecheck initcheck synccheck; do
      run "$tool" 100 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
        "${only[@]}" "${kernel_tests[@]}" -x -k tiny
    done
  else
    say "compute-sanitizer  skipped: not found on PATH, in the CUDA toolkit, or in the wheel nvidia-cuda-sanitizer-api"
  fi
fi

[ ! -f "$output/table.md" ] || cat "$output/table.md"
say "$([ $failed -eq 0 ] && echo "all steps passed" || echo "some step FAILED")"
exit $failed
