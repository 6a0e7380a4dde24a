"""Job arrays on a real Slurm of one node, with faults, without accounting; run by `nox -s slurm`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slurm_node import PROGRAMS, SlurmNode

import t3ssfast as t3
from result_files import results_in
from t3ssfast.cluster.ledger import Ledger
from t3ssfast.cluster.slurm import SlurmOptions
from t3ssfast.errors import ConfigError
from toy import VOXEL

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0, reason="needs slurm-wlm, munge and root"
    ),
    pytest.mark.usefixtures("faults"),
]
SLOTS = 4
PROGRAM = "from t3ssfast.cli import main; main()"
# Of a job, above what a worker with its imports takes, and of what the tomogram "memory" takes beyond.
JOB_MEGABYTES, TAKEN_BYTES = 1200, 2 << 30


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    with SlurmNode(tmp_path_factory.mktemp("slurm"), SLOTS) as started:
        yield started


@pytest.fixture
def slurm(node: SlurmNode, monkeypatch: pytest.MonkeyPatch) -> SlurmNode:
    """The node, with the environment that its commands and jobs need."""
    for name, value in node.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("T3SSFAST_TEST_BYTES", str(TAKEN_BYTES))
    return node


def jobs(**sbatch: str) -> SlurmOptions:
    given = {"cpus-per-task": "1", "mem": f"{JOB_MEGABYTES}M", "time": "10"} | sbatch
    return SlurmOptions(parallel=SLOTS, sbatch=given, per_job=1)


def wait(condition: Callable[[], Any], seconds: float = 240) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.2)
    return value


def command(*arguments: object, out: Path, options: dict[str, Any], wait_here: bool = False) -> list[str]:
    """Return a command line of submit, or of detect on Slurm, with the options of these tests."""
    given = [f"--segmenter={options['segmenter']}", f"--classifier={options['classifier']}"]
    given += ["--contrast=dark", "--device=cpu", "--no-png", "-o", str(out)]
    given += ["--sbatch=cpus-per-task=1", f"--sbatch=mem={JOB_MEGABYTES}M", "--sbatch=time=10"]
    kind = ["detect", f"--cluster=slurm:{SLOTS}"] if wait_here else ["submit", "--per-job=1"]
    return [sys.executable, "-c", PROGRAM, *kind, *given, *map(str, arguments)]


def run(line: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def status(out: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", PROGRAM, "status", "--all", str(out)])


def test_twelve_tomograms_with_faults(slurm, data_set, options, serial, tmp_path):
    good = [f"TS_{number:02d}" for number in range(1, 10)]
    paths = data_set(*good, "missing", "segfault", "memory")
    out = tmp_path / "out"
    summary = t3.detect_many(paths, out, executor=jobs(), **options)
    rows = {row["tomogram"]: row for _, row in summary.table.iterrows()}
    assert [rows[name]["status"] for name in good] == ["done"] * 9
    assert rows["missing"]["status"] == "failed"
    assert "no file of this name exists" in rows["missing"]["error"]
    assert rows["segfault"]["status"] == "poisoned"
    assert "SIGSEGV" in rows["segfault"]["error"]
    assert rows["memory"]["status"] in ("failed", "poisoned")
    for path in paths[:9]:
        assert results_in(out / path.stem) == serial(path)
        assert len(Ledger(out).of(path.stem)) == 1, "done once"
    assert len(Ledger(out).of("segfault")) == 3
    assert all(address.startswith("127.0.0.1:") for address in slurm.ports())
    assert not slurm.queue()


def test_submit_returns_and_does_what_is_missing(slurm, data_set, options, tmp_path):
    # The last one sleeps until it is cancelled.
    paths = data_set("TS_01", "TS_02", "TS_03", "TS_04", "slow")
    out = tmp_path / "out"
    submit = command(*paths, out=out, options=options)
    began = time.monotonic()
    first = run(submit)
    assert first.returncode == 0, first.stderr
    assert "submitted 5 of 5 tomograms as 5 jobs" in first.stdout
    again = run(submit)
    assert "submitted 0 of 5" in again.stdout, again.stdout + again.stderr
    wait(paths[4].with_suffix(".mark").exists)
    (cancelled,) = [line.split()[0] for line in slurm.queue() if line.split()[0].endswith("_4")]
    slurm.run("scancel", cancelled)
    wait(lambda: not slurm.queue())
    told = status(out)
    assert "5 tomograms: 4 done, 1 waiting" in told.stdout, told.stdout + told.stderr
    third = run(submit)
    assert "submitted 1 of 5" in third.stdout
    wait(lambda: not slurm.queue())
    told = status(out)
    assert told.returncode == 0
    assert "5 tomograms: 5 done" in told.stdout
    pooled = t3.load_all_candidates(out / "candidates.star")
    assert sum(map(len, pooled)) == 3
    assert time.monotonic() - began < 600


def test_time_limit_requeues_and_resumes(slurm, options, volumes, tmp_path):
    """The first attempt sleeps past the limit of a minute; the requeued one finishes."""
    t3.write(tmp_path / "slow.mrc", volumes["three"], VOXEL)
    out = tmp_path / "out"
    submitted = jobs(time="1")
    summary = t3.detect_many([tmp_path / "slow.mrc"], out, executor=submitted, retries=0, **options)
    assert list(summary.table["status"]) == ["done"], summary.table["error"][0]
    attempts = Ledger(out).of("slow")
    assert [one.status for one in attempts] == ["lost", "done"]
    assert attempts[0].job == attempts[1].job, "requeued by Slurm, and not submitted again"


def test_jobs_go_on_when_the_submitting_process_is_killed(slurm, data_set, options, tmp_path):
    paths = data_set("TS_01", "TS_02", "TS_03", "TS_04", "TS_05", "TS_06")
    out = tmp_path / "out"
    line = command(*paths, out=out, options=options, wait_here=True)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: any("RUNNING" in one for one in slurm.queue()))
    process.kill()
    process.wait()
    finished = run(line)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(" done ") + finished.stdout.count(" skipped ") == 6
    assert all(len(Ledger(out).of(path.stem)) == 1 for path in paths), "each was done once"


def test_interrupt_cancels_the_jobs(slurm, data_set, options, tmp_path):
    paths = data_set("TS_01", "slow")
    out = tmp_path / "out"
    line = command(*paths, out=out, options=options, wait_here=True)
    # A process in a shell's background ignores interrupts by default.
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    line = [line[0], "-c", f"{handler}; {PROGRAM}", *line[3:]]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    wait(lambda: any("RUNNING" in one for one in slurm.queue()))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    print(f"ended {seconds:.1f} s after the interrupt")
    wait(lambda: not slurm.queue(), 60)


def test_what_slurm_refuses_is_one_sentence(slurm, data_set, options, tmp_path):
    (path,) = data_set("TS_01")
    with pytest.raises(t3.T3Error, match=r"Slurm refused the jobs \(.*[Ii]nvalid partition"):
        t3.detect_many([path], tmp_path / "out", executor=jobs(partition="none"), **options)
    with pytest.raises(ConfigError, match="sbatch time=soon"):
        t3.detect_many([path], tmp_path / "out", executor=jobs(time="soon"), **options)
    assert np.isfinite(t3.read(path).data).all()
