"""Several processes share a list of tomograms, and take over from one that dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from test_resume import content

import t3ssfast as t3
from processes import Forks
from t3ssfast.detection import run_to_folder
from t3ssfast.detection.run import Run
from t3ssfast.errors import BusyError, OutputError
from t3ssfast.io.checksum_cache import CHECKSUM_FILE
from t3ssfast.runtime import folder_lock
from t3ssfast.runtime.folder_lock import LOCK_NAME, FolderLock, holder_of
from t3ssfast.runtime.process_identity import this_process
from toy import VOXEL, save_toy_models, toy_tomogram

NAMES = ("TS_01", "TS_02", "TS_03")


def names_in(out: Path) -> set[str]:
    """Return the names of all files in the folders of the results, but that of the kept checksums."""
    return {path.name for name in NAMES for path in (out / name).iterdir()} - {CHECKSUM_FILE}


def test_processes_share_a_list_of_tomograms(forks: Forks, tmp_path: Path, soak: bool) -> None:
    rounds = 50 if soak else 2
    segmenter, classifier = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((10, 90, 100))
    for k, name in enumerate(NAMES):
        t3.write(tmp_path / f"{name}.mrc", np.roll(tomogram.data, k, axis=1), VOXEL)

    def command(out: Path) -> str:
        files = [str(tmp_path / f"{name}.mrc") for name in NAMES]
        models = ["--segmenter", str(segmenter), "--classifier", str(classifier)]
        options = ["--no-png", "--device", "cpu", "--threads", "1", "--contrast", "dark"]
        return f"app({['detect', *files, '-o', str(out), *models, *options]!r})"

    child, log = forks.start(command(tmp_path / "want"))
    began = time.monotonic()
    assert forks.wait(child) == 0, log.read_text()
    whole = time.monotonic() - began
    want = {name: content(tmp_path / "want" / name) for name in NAMES}
    rng = np.random.default_rng(0)
    out = tmp_path / "out"
    for number in range(rounds):
        count = 2 + number % 3
        children = [forks.start(command(out)) for _ in range(count)]
        victim = None
        if number % 2:
            time.sleep(float(rng.uniform(0, whole)))
            victim = children[int(rng.integers(count))][0]
            os.kill(victim, signal.SIGKILL)
        codes = {child: forks.wait(child) for child, _ in children}
        printed = "".join(log.read_text() for _, log in children)
        assert codes.pop(victim, -signal.SIGKILL) in (0, -signal.SIGKILL)
        assert set(codes.values()) == {0}, printed
        assert "Traceback" not in printed
        for name in NAMES:
            assert content(out / name) == want[name]
            made = printed.count(f"wrote {out / name}")
            # A process that is killed after saving may not have printed it.
            assert made == 1 or (victim is not None and made == 0), printed
        if victim is None:
            assert names_in(out) == set(want["TS_01"])
        else:
            child, log = forks.start(command(out))
            assert forks.wait(child) == 0
            assert log.read_text().count("finished before") == len(NAMES)
            assert names_in(out) == set(want["TS_01"])
        shutil.rmtree(out)


def test_one_process_at_a_time_takes_over_a_folder(forks: Forks, tmp_path: Path, soak: bool) -> None:
    """Of four processes that wait for the folder of a killed one, each gets it in the end, one at a time."""
    times = 50 if soak else 5
    folder, journal = tmp_path / "folder", tmp_path / "journal"
    folder.mkdir()
    holder_script = f"""
        with FolderLock(Path({str(folder)!r})):
            print("has it", flush=True)
            time.sleep(100)
        """
    waiter_script = f"""
        while True:
            try:
                with FolderLock(Path({str(folder)!r})):
                    with open({str(journal)!r}, "a") as file:
                        file.write("in\\n"), file.flush()
                        time.sleep(0.01)
                        file.write("out\\n")
                break
            except t3.errors.BusyError:
                time.sleep(0.002)
        """
    for _ in range(times):
        holder, log = forks.start(holder_script)
        while not (log.exists() and "has it" in log.read_text()):
            time.sleep(0.005)
        waiters = [forks.start(waiter_script) for _ in range(4)]
        time.sleep(0.05)
        assert not journal.exists(), "nobody enters while the holder lives"
        os.kill(holder, signal.SIGKILL)
        for waiter, said in waiters:
            assert forks.wait(waiter) == 0, said.read_text()
        assert forks.wait(holder) == -signal.SIGKILL
        assert journal.read_text().split() == ["in", "out"] * 4
        assert not list(folder.iterdir())
        journal.unlink()


def leave_behind(folder: Path, host: str, age: float) -> None:
    """Write the lock file of a process on another machine that has stopped."""
    path = folder / LOCK_NAME
    path.write_text(json.dumps({"host": host, "pid": 12, "token": "0123"}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_process_killed_while_it_took_over_stops_nobody(forks: Forks, tmp_path: Path) -> None:
    """It leaves its guard beside the lock of the process before, which was killed, too."""
    lock, guard = tmp_path / LOCK_NAME, tmp_path / f"{LOCK_NAME}-takeover"
    for where in (f"FolderLock(Path({str(tmp_path)!r})).__enter__(), stop()", "Path.unlink = stop"):
        child, log = forks.start(f"""
            def stop(*args, **options):
                os.kill(os.getpid(), signal.SIGKILL)
            {where}
            FolderLock(Path({str(tmp_path)!r})).__enter__()
            """)
        assert forks.wait(child) == -signal.SIGKILL, log.read_text()
    assert lock.exists()
    assert guard.exists()
    with FolderLock(tmp_path) as holder:
        holder.check()
    assert not list(tmp_path.iterdir())


def test_folder_has_one_holder_at_a_time(tmp_path):
    with FolderLock(tmp_path) as first:
        with (
            pytest.raises(BusyError, match=f"Process {os.getpid()} on .* is writing into"),
            FolderLock(tmp_path),
        ):
            pass
        first.check()
    assert not list(tmp_path.iterdir())
    with FolderLock(tmp_path):
        pass


def test_lock_of_another_machine_is_respected_until_it_is_stale(tmp_path):
    leave_behind(tmp_path, "elsewhere", 0.5 * folder_lock.STALE_SECONDS)
    with pytest.raises(BusyError, match="Process 12 on elsewhere"), FolderLock(tmp_path):
        pass
    assert holder_of(tmp_path) == "Process 12 on elsewhere"
    leave_behind(tmp_path, "elsewhere", 2 * folder_lock.STALE_SECONDS)
    assert holder_of(tmp_path) == ""
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_host_of_the_same_name_is_another_machine(tmp_path):
    """The process number of another machine, or of another container, says nothing here."""
    leave_behind(tmp_path, this_process()["host"], 0)
    with pytest.raises(BusyError, match="Process 12"), FolderLock(tmp_path):
        pass
    for field in ("machine", "pid", "start"):
        changed = this_process() | {"token": "0123", field: None}
        (tmp_path / LOCK_NAME).write_text(json.dumps(changed))
        if field == "start":
            # This process has the number of one that has ended.
            with FolderLock(tmp_path):
                pass
        else:
            with pytest.raises(BusyError), FolderLock(tmp_path):
                pass


def test_the_holder_beats_and_notices_that_another_took_over(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(folder_lock, "CHECK_SECONDS", 0.0)
    # As on another machine.
    monkeypatch.setattr(folder_lock, "is_running", lambda process: None)
    with FolderLock(tmp_path) as held:
        held.check()
        then = time.time() - 2 * folder_lock.STALE_SECONDS
        os.utime(tmp_path / LOCK_NAME, (then, then))
        time.sleep(0.3)
        with pytest.raises(BusyError), FolderLock(tmp_path):
            pass
        # Another process takes it for dead: the holder notices, and leaves the other's file alone.
        leave_behind(tmp_path, "elsewhere", 0)
        with pytest.raises(BusyError, match="took over"):
            held.check()
    assert (tmp_path / LOCK_NAME).exists()


def test_a_detection_whose_folder_was_taken_over_ends_before_the_next_slab(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "CHECK_SECONDS", 0.0)
    segmenter, classifier = save_toy_models(tmp_path)
    t3.write(tmp_path / "a.mrc", toy_tomogram((10, 90, 100))[0].data, VOXEL)
    slabs_read: list[int] = []
    original = Run.read_slab

    def read_slab(self, grid, z0, z1):
        if slabs_read:
            leave_behind(tmp_path / "out", "elsewhere", 0)
        slab = original(self, grid, z0, z1)
        slabs_read.append(z0)
        return slab

    monkeypatch.setattr(Run, "read_slab", read_slab)
    with pytest.raises(BusyError, match="took over"):
        run_to_folder(
            tmp_path / "out",
            tmp_path / "a.mrc",
            segmenter=segmenter,
            classifier=classifier,
            config=t3.DetectConfig(contrast="dark", slab_slices=1, segmenter_engine="torch"),
            device="cpu",
            progress=False,
        )
    # The slab behind the one that is refused may have been asked for, but is refused as well.
    assert slabs_read == [0]
    assert not (tmp_path / "out" / "provenance.json").exists()


def test_takeover_of_another_machine_is_respected_until_it_is_stale(tmp_path):
    guard = tmp_path / f"{LOCK_NAME}-takeover"
    for age in (0.5, 2):
        leave_behind(tmp_path, "elsewhere", 2 * folder_lock.STALE_SECONDS)
        shutil.copy(tmp_path / LOCK_NAME, guard)
        then = time.time() - age * folder_lock.STALE_SECONDS
        os.utime(guard, (then, then))
        if age < 1:
            with pytest.raises(BusyError, match="Process 12 on elsewhere"), FolderLock(tmp_path):
                pass
            assert guard.exists()
        else:
            with FolderLock(tmp_path):
                pass
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": "x"}', b"0" * 9000])
def test_damaged_lock_file_belongs_to_nobody(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    then = time.time() - 2 * folder_lock.STALE_SECONDS
    os.utime(tmp_path / LOCK_NAME, (then, then))
    with FolderLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_missing_folder_raises(tmp_path):
    with pytest.raises(OutputError, match="cannot be written to"), FolderLock(tmp_path / "none"):
        pass
