"""The example scripts run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
# Examples that start processes of their own, and the packages that these need.
SLOW = {"dask_cluster.py": ["distributed"], "many_at_once.py": []}
QUICK = [path for path in EXAMPLES if path.name not in SLOW]
# All in one process, as importing PyTorch takes longer than some of them.
RUN_ALL = """
import contextlib, io, json, runpy, sys, traceback
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot
matplotlib.pyplot.show = lambda: None
results = {}
for path in sys.argv[1:]:
    output, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(path, run_name="__main__")
    except BaseException:
        error = traceback.format_exc()
    results[path] = [output.getvalue(), error]
print(json.dumps(results))
"""


def test_examples_are_found() -> None:
    assert len(QUICK) >= 6


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short_and_has_a_title(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert lines[0] == '"""'
    assert lines[2] == "=" * len(lines[1])


def test_examples_run(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *map(str, QUICK)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stderr
    answers: dict[str, tuple[str, str | None]] = json.loads(finished.stdout)
    assert answers.keys() == {str(path) for path in QUICK}
    errors = [error for _, error in answers.values() if error is not None]
    assert not errors, "\n".join(errors)
    assert [path for path, (output, _) in answers.items() if not output] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_example_with_processes_runs(name: str, tmp_path: Path) -> None:
    for package in SLOW[name]:
        pytest.importorskip(package)
    (path,) = (path for path in EXAMPLES if path.name == name)
    finished = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout
