"""A real cluster of dask on this machine, whose workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import t3ssfast as t3
from result_files import results_in
from t3ssfast.cluster.ledger import Ledger

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.usefixtures("faults"),
    # dask warns about its workers that are killed, and leaves sockets to be collected.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def cluster(tmp_path: Path, faults: None) -> Iterator[Any]:
    """A scheduler and two workers, on the loopback interface only."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address="127.0.0.1:0",
        local_directory=tmp_path / "dask",
    ) as started:
        yield started


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    with distributed.Client(cluster) as connected:
        yield connected


def in_background(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def wait(condition: Callable[[], Any], seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)
    return value


def done_in(out: Path) -> int:
    """Return the number of tomograms that are done."""
    return sum(attempts[-1].status == "done" for attempts in Ledger(out).all().values())


def settings(client: Any) -> Any:
    return client.run_on_scheduler(
        lambda dask_scheduler: (
            dask_scheduler.allowed_failures,
            dask_scheduler.WORKER_SATURATION,
            dask_scheduler.worker_ttl,
            len(dask_scheduler.tasks),
        )
    )


def test_killed_workers_cost_one_attempt(client, data_set, options, serial, tmp_path, soak):
    """A worker of dask is killed in the middle of a tomogram; in the long form others are, too."""
    names = ["TS_01", "slow", "missing"]
    if soak:
        names += ["segfault", "once", *(f"TS_{number:02d}" for number in range(2, 10))]
    paths = data_set(*names)
    out = tmp_path / "out"
    before = settings(client)
    interrupt = signal.getsignal(signal.SIGINT)
    killed: list[int] = []

    def kill() -> None:
        wait(lambda: paths[1].with_suffix(".mark").exists())
        (running,) = [one for one in Ledger(out).of("slow") if one.status == "running"]
        os.kill(running.process["pid"], signal.SIGKILL)
        killed.append(running.process["pid"])
        for number in range(3 if soak else 0):
            # After some progress, so that no tomogram is in all of the workers that are killed.
            before = done_in(out)
            wait(lambda before=before: done_in(out) >= before + 2)
            victims = sorted(client.run(os.getpid).values())
            os.kill(victims[number % len(victims)], signal.SIGKILL)

    thread = in_background(kill)
    summary = t3.detect_many(paths, out, executor=client, **options)
    thread.join(60)
    assert killed
    rows = {row["tomogram"]: row for _, row in summary.table.iterrows()}
    assert rows["slow"]["status"] in ("done", "skipped")
    assert rows["slow"]["attempts"] >= 2
    assert rows["missing"]["status"] == "failed"
    done = [path for path in paths if path.stem.startswith(("TS", "slow", "once"))]
    for path in done if soak else done[:1]:
        # Skipped, if its worker was killed when it had just saved the results.
        assert rows[path.stem]["status"] in ("done", "skipped"), rows[path.stem]["error"]
        assert results_in(out / path.stem) == serial(path)
    if soak:
        assert rows["segfault"]["status"] == "poisoned"
        assert "SIGSEGV" in rows["segfault"]["error"]
    # Nothing is kept in the scheduler, and nothing is changed there or here.
    assert settings(client) == (*before[:3], 0)
    assert signal.getsignal(signal.SIGINT) is interrupt


@pytest.mark.slow
def test_a_killed_scheduler_is_one_sentence_and_the_next_run_goes_on(data_set, options, tmp_path):
    paths = data_set("TS_01", "slow", "TS_02")
    out = tmp_path / "out"

    def start(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler"
                if command[0] == "scheduler"
                else "distributed.cli.dask_worker",
                *command[1:],
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    file = tmp_path / "scheduler.json"
    local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = start("scheduler", *local, "--port", "0")
    worker = start("worker", *local, "--nthreads", "1", "--death-timeout", "20")
    try:
        with distributed.Client(scheduler_file=str(file)) as client:
            in_background(
                lambda: (wait(lambda: paths[1].with_suffix(".mark").exists()), scheduler.kill())  # type: ignore[func-returns-value]
            )
            with pytest.raises(t3.T3Error, match="scheduler of dask was lost"):
                t3.detect_many(paths, out, executor=client, **options)
    finally:
        for process in (scheduler, worker):
            process.terminate()
            process.wait(60)
    summary = t3.detect_many(paths, out, **options)
    assert set(summary.table["status"]) <= {"done", "skipped"}
