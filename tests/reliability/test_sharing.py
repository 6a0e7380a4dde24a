"""Several processes in one folder share the work, and one that dies is taken over from."""

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
from t3ssfast.errors import BusyError, OutputError
from t3ssfast.runtime import folder_lock
from t3ssfast.runtime.folder_lock import LOCK_NAME, FolderLock
from toy import VOXEL, save_toy_models, toy_tomogram

NAMES = ("TS_01", "TS_02", "TS_03")


def share(rounds: int, forks: Forks, tmp_path: Path) -> None:
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
            # Who is killed after all is written, or before it can say so, has made it unheard.
            assert made == 1 or (victim is not None and made == 0), printed
        if victim is None:
            assert {path.name for name in NAMES for path in (out / name).iterdir()} == set(want["TS_01"])
        else:
            child, log = forks.start(command(out))
            assert forks.wait(child) == 0
            assert log.read_text().count("finished before") == len(NAMES)
            assert {path.name for name in NAMES for path in (out / name).iterdir()} == set(want["TS_01"])
        shutil.rmtree(out)


def test_processes_share_a_list_of_tomograms(forks, tmp_path):
    share(2, forks, tmp_path)


@pytest.mark.slow
def test_processes_share_a_list_of_tomograms_fifty_times(forks, tmp_path):
    share(50, forks, tmp_path)


def take_over(times: int, forks: Forks, tmp_path: Path) -> None:
    """Of four that wait for a folder whose holder is killed, one gets it at a time, and each in the end."""
    folder, diary = tmp_path / "folder", tmp_path / "diary"
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
                    with open({str(diary)!r}, "a") as file:
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
        assert not diary.exists(), "nobody comes in while the holder lives"
        os.kill(holder, signal.SIGKILL)
        for waiter, said in waiters:
            assert forks.wait(waiter) == 0, said.read_text()
        assert forks.wait(holder) == -signal.SIGKILL
        assert diary.read_text().split() == ["in", "out"] * 4
        assert not list(folder.iterdir())
        diary.unlink()


def test_the_place_of_a_killed_process_is_taken_by_one_at_a_time(forks, tmp_path):
    take_over(5, forks, tmp_path)


@pytest.mark.slow
def test_the_place_of_a_killed_process_is_taken_fifty_times(forks, tmp_path):
    take_over(50, forks, tmp_path)


# ----------------------------------------------------------------------------------- leases by themselves


def leave_behind(folder: Path, host: str, age: float) -> None:
    """What a process on some machine leaves in a folder when it stands still."""
    path = folder / LOCK_NAME
    path.write_text(json.dumps({"host": host, "pid": 12, "token": "0123"}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_folder_is_one_holders_at_a_time(tmp_path):
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


@pytest.mark.parametrize("locks", [True, False])
def test_another_machine_is_believed_to_live_until_it_is_silent(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(folder_lock, "fcntl", None)
        monkeypatch.setattr(folder_lock, "SETTLE_SECONDS", 0.01)
    leave_behind(tmp_path, "elsewhere", 0.5 * folder_lock.STALE_SECONDS)
    with pytest.raises(BusyError, match="Process 12 on elsewhere"), FolderLock(tmp_path):
        pass
    leave_behind(tmp_path, "elsewhere", 2 * folder_lock.STALE_SECONDS)
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_the_record_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "fcntl", None)
    monkeypatch.setattr(folder_lock, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(folder_lock, "HEARTBEAT_SECONDS", 0.01)
    with FolderLock(tmp_path) as held:
        with pytest.raises(BusyError), FolderLock(tmp_path):
            pass
        # It says again and again that it lives.
        then = time.time() - 2 * folder_lock.STALE_SECONDS
        os.utime(tmp_path / LOCK_NAME, (then, then))
        time.sleep(0.3)
        with pytest.raises(BusyError), FolderLock(tmp_path):
            pass
        # Another takes it for dead: it finds out, and leaves the other's file alone.
        leave_behind(tmp_path, "elsewhere", 0)
        time.sleep(0.3)
        with pytest.raises(BusyError, match="took over"):
            held.check()
    assert (tmp_path / LOCK_NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": "x"}', b"0" * 9000])
def test_a_damaged_record_is_nobodys(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    then = time.time() - 2 * folder_lock.STALE_SECONDS
    os.utime(tmp_path / LOCK_NAME, (then, then))
    with FolderLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot be written to"), FolderLock(tmp_path / "none"):
        pass
