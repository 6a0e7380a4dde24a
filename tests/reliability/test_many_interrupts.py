"""Ctrl-C ends a run of many tomograms with one word and without a process left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from processes import Forks
from t3ssfast.cluster.ledger import Ledger
from t3ssfast.io import write
from toy import VOXEL, save_toy_models, toy_tomogram

MAX_SECONDS = 5.0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_interrupt_ends_the_workers_and_costs_no_attempt(forks: Forks, tmp_path: Path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    tomogram = toy_tomogram((6, 90, 100))[0].data
    for number in range(3):
        write(tmp_path / f"TS_{number}.mrc", tomogram, VOXEL)
    out = tmp_path / "out"
    command = ["t3ssfast", "detect", str(tmp_path), "-o", str(out), "--cluster", "local:1", "--no-png"]
    command += ["--segmenter", str(segmenter), "--classifier", str(classifier), "--device", "cpu"]
    child, log = forks.start(f"sys.argv = {command!r}; print('ready', flush=True); main()")
    ledger, until = Ledger(out), time.monotonic() + 100
    while not (logs := list((out / "t3ssfast-logs").glob("*.log"))) or not logs[0].read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)
    # The log begins with the time and the process of the worker.
    worker = int(logs[0].read_text().split("process ")[1].split(":")[0])
    os.kill(child, signal.SIGINT)
    began = time.monotonic()
    code = forks.wait(child)
    seconds = time.monotonic() - began
    output = log.read_text().splitlines()
    assert code == 130, output
    assert output[-1] == "interrupted"
    assert "Traceback" not in log.read_text()
    assert seconds < MAX_SECONDS
    while is_running(worker):
        assert time.monotonic() - began < MAX_SECONDS
        time.sleep(0.01)
    statuses = {one.status for attempts in ledger.all().values() for one in attempts}
    assert "killed" not in statuses
