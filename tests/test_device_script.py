"""bench/device.sh runs the kernels' tests and the sanitizers with PyTorch, NumPy and pytest alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import t3ssfast

ROOT = Path(__file__).resolve().parents[1]

# Everything else that this project uses is as if it were not installed.
BLOCKER = """
import sys

ABSENT = set(
    "scipy mrcfile starfile pandas dynamotable imodmodel cc3d typer rich matplotlib lazy_loader hypothesis "
    "zarr sklearn openvino pytest_timeout pytest_benchmark pybind11".split()
)

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""

# Runs the command after its own options.
SANITIZER = """#!/bin/bash
[ "$1" != --help ] || exit 0
while [[ $1 == --* ]]; do shift 2; done
exec "$@"
"""


def test_dry_run_with_pytorch_numpy_and_pytest_alone(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    sanitizer = tmp_path / "compute-sanitizer"
    sanitizer.write_text(SANITIZER)
    sanitizer.chmod(0o755)
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "T3SSFAST_DEVICE_DRY_RUN": "1",
        "T3SSFAST_DEVICE_PACKAGE": str(Path(t3ssfast.__file__).parents[1]),
        "T3SSFAST_DEVICE_STEPS": "tests pipeline bench sanitize",
    }
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "device.sh"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
    )
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("tests", "memcheck", "racecheck", "initcheck", "synccheck"):
        assert f"{step:12} passed" in summary
    for step in ("pipeline", "bench"):
        assert f"{step:12} skipped: no module scipy" in summary
    log = (tmp_path / "out" / "tests.log").read_text()
    counts = re.search(r"^(?:(\d+) passed, )?(?:(\d+) skipped)? in ", log, re.MULTILINE)
    assert counts, log
    assert sum(int(count or 0) for count in counts.groups()) > 60
