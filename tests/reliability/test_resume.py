"""A detection that is stopped loses at most the slab in progress, and a later run resumes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t3ssfast as t3
from processes import Forks
from t3ssfast.detection import folder as folder_module
from t3ssfast.detection import run_to_folder
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import CheckpointWarning, ConfigError, OutputError
from t3ssfast.io.checksum_cache import CHECKSUM_FILE
from t3ssfast.runtime.checkpoint import CheckpointStore, remove_checkpoints
from toy import VOXEL, save_toy_models, toy_classifier, toy_tomogram

SLICES = 36
# PyTorch needs no preparation, unlike OpenVINO: a detection takes a second.
CONFIG = DetectConfig(slab_slices=2, threads=2, segmenter_engine="torch")
FILES = (
    "candidates.star",
    "candidates.csv",
    "candidates.mod",
    "candidates.tbl",
    "candidates.doc",
    "membrane.mrc",
)
# Pieces of a checkpoint: one of each kind for a slab.
KINDS = ("membrane", "scores")
# Entries of the provenance that may differ between an interrupted run and one that was not.
RUN_ENTRIES = ("seconds", "resumed")


def world(folder: Path) -> dict[str, Any]:
    """Arguments of `run_to_folder`: models and a tomogram in a folder, in many slabs."""
    segmenter, classifier = save_toy_models(folder)
    tomogram, _, _ = toy_tomogram((SLICES, 110, 120))
    t3.write(folder / "toy.mrc", tomogram.data, VOXEL)
    return {
        "tomogram": folder / "toy.mrc",
        "segmenter": segmenter,
        "classifier": classifier,
        "device": "cpu",
        "config": CONFIG,
        "progress": False,
    }


def content(folder: Path) -> dict[str, bytes]:
    """Contents of the result files, without the entries of the run."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    provenance = json.loads((folder / "provenance.json").read_text())
    for name in RUN_ENTRIES:
        del provenance[name]
    found["provenance.json"] = json.dumps(provenance).encode()
    return found


def pieces(folder: Path, kind: str) -> set[str]:
    return {path.name for path in folder.glob(f".t3ssfast-work-*/{kind}-*.npz")}


def slices_in(names: set[str]) -> int:
    ends = [name.removesuffix(".npz").split("-")[1:] for name in names]
    return sum(int(last) - int(first) for first, last in ends)


def wait_for_a_moment(out: Path, rng: np.random.Generator, whole: float) -> None:
    """Wait until a random moment of a detection.

    Either by the clock, or by the pieces that it has kept, which works on a busy machine, too.
    """
    held = sum(slices_in(pieces(out, kind)) for kind in KINDS)
    if held == 2 * SLICES:
        # Half of these finish, so that other detections begin anew.
        time.sleep(float(rng.uniform(0, 2 * whole)))
        return
    if rng.random() < 0.3:
        time.sleep(float(rng.uniform(0, whole)))
        return
    goal = int(rng.integers(held + 1, 2 * SLICES + 1))
    until = time.monotonic() + 20 * whole + 20
    while time.monotonic() < until and not (out / "provenance.json").exists():
        if sum(slices_in(pieces(out, kind)) for kind in KINDS) >= goal:
            break
        time.sleep(0.002)
    # Up to the duration of a slab, so that the moment lies anywhere in one.
    time.sleep(float(rng.uniform(0, whole / SLICES)))


def stop_and_resume(times: int, how: signal.Signals, forks: Forks, tmp_path: Path) -> None:
    given = world(tmp_path)
    out = tmp_path / "out"
    arguments = {name: str(value) for name, value in given.items() if isinstance(value, Path)}
    # Interrupts before and after the detection would hit the test itself.
    script = f"""
        def search():
            given = {{"config": test_resume.CONFIG, "device": "cpu", "progress": False}}
            run_to_folder({str(out)!r}, **given, **{arguments!r})
        try:
            print("ready", flush=True)
            run_interruptible(search)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            raise SystemExit(130)
        """
    began = time.monotonic()
    child, log = forks.start(script)
    assert forks.wait(child) == 0, log.read_text()
    whole = time.monotonic() - began
    want = content(out)
    shutil.rmtree(out)
    rng = np.random.default_rng(0)
    stopped = finished = resumed = continued = 0
    took = [0.0]
    before: dict[str, set[str]] = {kind: set() for kind in KINDS}
    while stopped < times or not finished:
        child, log = forks.start(script)
        if stopped < times:
            while not (log.exists() and "ready" in log.read_text()):
                time.sleep(0.002)
            wait_for_a_moment(out, rng, whole)
            os.kill(child, how)
        asked = time.monotonic()
        code = forks.wait(child)
        if code == 0:
            # It ended before the signal came.
            finished += 1
            provenance = json.loads((out / "provenance.json").read_text())
            assert provenance["resumed"] == {
                "slices_segmented": slices_in(before["membrane"]),
                "slices_judged": slices_in(before["scores"]),
            }
            resumed += provenance["resumed"]["slices_segmented"] > 0
            assert content(out) == want
            names = {path.name for path in out.iterdir()} - {CHECKSUM_FILE}
            assert names == set(want), "temporary files are left"
            shutil.rmtree(out)
            before = {kind: set() for kind in KINDS}
            continue
        stopped += 1
        if how is signal.SIGINT:
            assert code == 130, log.read_text()
            took.append(time.monotonic() - asked)
        else:
            assert code == -how, log.read_text()
        done = (out / "provenance.json").exists()
        if done:
            assert content(out) == want, "provenance.json beside unfinished results"
            shutil.rmtree(out)
            before = {kind: set() for kind in KINDS}
            continue
        now = {kind: pieces(out, kind) for kind in KINDS}
        for kind, names in now.items():
            assert before[kind] <= names, "a kept piece was lost"
            continued += bool(before[kind]) and before[kind] < names
        for path in out.glob(".t3ssfast-work-*/[a-z]*.npz"):
            with np.load(path) as file:
                assert all(file[name] is not None for name in file.files), f"{path} is damaged"
        before = now
    print(
        f"{how.name}: {stopped} stopped, {continued} of them after resuming; {finished} finished, {resumed} "
        f"of them after resuming; at most {max(took):.2f} s from the signal to the end"
    )
    # A few random moments may all come before anything is kept.
    assert times < 20 or continued + resumed > times // 10
    assert max(took) < 2


def test_kill_loses_at_most_the_slab_in_progress(forks, tmp_path, soak):
    stop_and_resume(200 if soak else 5, signal.SIGKILL, forks, tmp_path)


def test_interrupt_loses_at_most_the_slab_in_progress(forks, tmp_path, soak):
    stop_and_resume(50 if soak else 3, signal.SIGINT, forks, tmp_path)


class Stop(Exception):
    """Ends a detection in the middle."""


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, kind: str, after: int) -> Any:
    """Stop every detection of the block after it has kept a number of pieces of a kind."""
    save = CheckpointStore.save
    kept = 0

    def count(self: CheckpointStore, name: str, *arguments: Any, **arrays: Any) -> None:
        nonlocal kept
        save(self, name, *arguments, **arrays)
        kept += name.startswith(kind)
        if kept == after:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", count)
        with pytest.raises(Stop):
            yield


def run(given: dict[str, Any], **options: Any) -> t3.Detection:
    arguments = {**given, **options}
    return t3.detect(arguments.pop("tomogram"), **arguments)


def saved(detection: t3.Detection, folder: Path) -> dict[str, bytes]:
    detection.save(folder)
    return content(folder)


def test_later_call_resumes(tmp_path, monkeypatch):
    given, kept = world(tmp_path), tmp_path / "kept"
    want = saved(run(given), tmp_path / "want")
    with stopping(monkeypatch, "scores", 5):
        run(given, checkpoint=kept)
    # Thicker slabs and another number of threads change no result, and so not the key.
    other = replace(CONFIG, slab_slices=5, threads=1)
    found = run(given, checkpoint=kept, config=other)
    assert found.provenance["resumed"] == {"slices_segmented": SLICES, "slices_judged": 10}
    got = saved(found, tmp_path / "got")
    assert {name: got[name] for name in FILES} == {name: want[name] for name in FILES}
    assert found.provenance["counts"] == json.loads(want["provenance.json"])["counts"]
    assert not list(kept.iterdir()), "saving removes the checkpoint"


@pytest.mark.parametrize("changed", ["tomogram", "configuration", "model", "mask"])
def test_pieces_of_other_work_are_never_used(tmp_path, monkeypatch, changed):
    given, kept = world(tmp_path), tmp_path / "kept"
    _, _, membrane = toy_tomogram((SLICES, 110, 120))
    if changed == "mask":
        del given["segmenter"]
        given["membrane"] = membrane
    with stopping(monkeypatch, "scores", 5):
        run(given, checkpoint=kept)
    if changed == "tomogram":
        data = np.array(t3.read(given["tomogram"]).data)
        data[3, 4, 5] += 1
        t3.write(given["tomogram"], data, VOXEL)
    elif changed == "configuration":
        given["config"] = replace(CONFIG, score_threshold=CONFIG.score_threshold / 2)
    elif changed == "model":
        (tmp_path / "other").mkdir()
        given["classifier"] = save_toy_models(tmp_path / "other", voxel_size_angstrom=VOXEL * 1.001)[1]
    else:
        given["membrane"] = membrane.copy()
        given["membrane"][0, 0, 0] = 1
    with pytest.warns(CheckpointWarning, match="starts from the beginning"):
        found = run(given, checkpoint=kept)
    assert found.provenance["resumed"] == {"slices_segmented": 0, "slices_judged": 0}
    if changed == "mask":
        assert found.membrane is None
        np.testing.assert_array_equal(found.candidates.centre_zyx, run(given).candidates.centre_zyx)
    else:
        assert saved(found, tmp_path / "got") == saved(run(given), tmp_path / "want")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def change_key(path: Path) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "key": np.array("0" * 64)})


@pytest.mark.parametrize("spoil", [cut_off, flip, change_key, Path.unlink])
def test_damaged_piece_is_computed_again(tmp_path, monkeypatch, spoil: Callable[[Path], None]):
    given, kept = world(tmp_path), tmp_path / "kept"
    want = saved(run(given), tmp_path / "want")
    with stopping(monkeypatch, "scores", 5):
        run(given, checkpoint=kept)
    for kind in ("membrane", "scores"):
        spoil(sorted(kept.glob(f".t3ssfast-work-*/{kind}-*.npz"))[2])
    found = run(given, checkpoint=kept)
    assert found.provenance["resumed"] == {"slices_segmented": SLICES - 2, "slices_judged": 8}
    assert saved(found, tmp_path / "got") == want


def wrong_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    """A spoiler that keeps the key of a piece and changes its arrays."""

    def spoil(path: Path) -> None:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        np.savez(path, **{**arrays, **change(arrays)})

    return spoil


def with_value(array: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


WRONG_ARRAYS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "membrane of fewer slices": ("membrane", lambda a: {"levels": a["levels"][1:]}),
    "membrane with x and y exchanged": ("membrane", lambda a: {"levels": a["levels"].swapaxes(1, 2)}),
    "membrane of another type": ("membrane", lambda a: {"levels": a["levels"].astype(np.float32)}),
    "fewer scores than windows": ("scores", lambda a: {"probability": a["probability"][1:]}),
    "windows beyond the slab": ("scores", lambda a: {"index": with_value(a["index"], -1, 1 << 30)}),
    "windows out of order": ("scores", lambda a: {"index": a["index"][::-1].astype(np.uint32)}),
    "a window far outside": (
        "scores",
        lambda a: {"index": with_value(a["index"].astype(np.uint64), len(a["index"]) // 2, 1 << 40)},
    ),
    "a score of NaN": ("scores", lambda a: {"probability": with_value(a["probability"], 0, np.nan)}),
    "a score above 1": ("scores", lambda a: {"probability": with_value(a["probability"], 3, 1.5)}),
    "more windows searched than there are": ("scores", lambda a: {"near": np.array(1 << 40)}),
    "scores in two dimensions": ("scores", lambda a: {k: a[k][None] for k in ("index", "probability")}),
    "Python objects": ("scores", lambda a: {"index": a["index"].astype(object)}),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Arguments, checkpoint and final result of a detection that was stopped after five slabs of scores."""
    folder = tmp_path_factory.mktemp("stopped")
    given = world(folder)
    want = saved(run(given), folder / "want")
    with pytest.MonkeyPatch.context() as monkeypatch, stopping(monkeypatch, "scores", 5):
        run(given, checkpoint=folder / "kept")
    return given, folder / "kept", want


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_piece_with_wrong_arrays_is_computed_again(stopped, tmp_path, name):
    given, original, want = stopped
    kept = shutil.copytree(original, tmp_path / "kept")
    kind, change = WRONG_ARRAYS[name]
    wrong_arrays(change)(sorted(kept.glob(f".t3ssfast-work-*/{kind}-*.npz"))[2])
    found = run(given, checkpoint=kept)
    counts = {
        "slices_segmented": SLICES - 2 * (kind == "membrane"),
        "slices_judged": 10 - 2 * (kind == "scores"),
    }
    assert found.provenance["resumed"] == counts
    assert saved(found, tmp_path / "got") == want


def test_overlapping_pieces_are_used_in_order(tmp_path):
    checkpoint = CheckpointStore(tmp_path, "key")
    for slab in [(0, 4), (2, 6), (6, 8), (9, 12), (20, 24)]:
        checkpoint.save_slab("some", slab, value=slab[0])
    runs = [(run, None if kept is None else int(kept["value"])) for run, kept in checkpoint.runs("some", 14)]
    assert runs == [((0, 4), 0), ((4, 6), None), ((6, 8), 6), ((8, 9), None), ((9, 12), 9), ((12, 14), None)]
    assert list(CheckpointStore(None, "key").runs("some", 3)) == [((0, 3), None)]
    with pytest.warns(CheckpointWarning, match="belongs to another input"):
        another = CheckpointStore(tmp_path, "another")
    assert list(another.runs("some", 3)) == [((0, 3), None)]
    assert list(checkpoint.runs("some", 4)) != [((0, 4), None)], "the pieces of the first key are still there"


@pytest.mark.parametrize("name", ["lenet[1].pt", "work"])
def test_checkpoints_are_found_by_their_whole_name(tmp_path, name):
    CheckpointStore(tmp_path, "first", name=name).save("some", value=1)
    CheckpointStore(tmp_path, "first", name=f"{name}-2").save("some", value=2)
    with pytest.warns(CheckpointWarning, match="-first"):
        CheckpointStore(tmp_path, "second", name=name)
    remove_checkpoints(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert f".t3ssfast-{name}-2-first" in left
    assert (f".t3ssfast-{name}-first" in left) == (name != "work")


def test_modules_cannot_be_checkpointed(tmp_path):
    given = world(tmp_path)
    with pytest.warns(match="metadata"), pytest.raises(ConfigError, match="module"):
        run({**given, "classifier": toy_classifier()}, checkpoint=tmp_path / "kept")


def test_finished_results_are_read_if_they_match(tmp_path, monkeypatch):
    given, out = world(tmp_path), tmp_path / "out"
    first, new = run_to_folder(out, **given)
    assert new
    want = content(out)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "run_pipeline", None)
        again, new = run_to_folder(out, **given)
        other_size = {**given, "config": replace(CONFIG, slab_slices=7, memory_budget_bytes=1 << 30)}
        assert not run_to_folder(out, **other_size)[1]
    assert not new
    np.testing.assert_allclose(again.candidates.centre_zyx, first.candidates.centre_zyx, atol=1e-3)
    np.testing.assert_array_equal(again.membrane, first.membrane)
    assert again.provenance["key"] == first.provenance["key"]
    assert content(out) == want
    for name in ("candidates.tbl", "membrane.mrc", "provenance.json"):
        (out / name).unlink()
        assert run_to_folder(out, **given)[1], f"{name} is missing"
        assert content(out) == want
    assert run_to_folder(out, **given, resume=False)[1]
    lower = replace(CONFIG, score_threshold=CONFIG.score_threshold / 2)
    assert run_to_folder(out, **{**given, "config": lower})[1]


def test_failing_run_leaves_no_empty_folders(tmp_path):
    given = world(tmp_path)
    data = np.array(t3.read(given["tomogram"]).data)
    data[20, 3, 3] = np.nan
    t3.write(tmp_path / "nan.mrc", data, VOXEL)
    with pytest.raises(t3.T3Error, match=r"\(20, 3, 3\)"):
        run_to_folder(tmp_path / "a" / "b", **{**given, "tomogram": tmp_path / "nan.mrc"}, resume=False)
    assert not (tmp_path / "a").exists()


@contextmanager
def small_disk(folder: Path, size: int) -> Any:
    """Mount a file system of a size in bytes at a folder; yields a function that resizes it."""
    import subprocess

    def mount(option: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", option, "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")

    folder.mkdir()
    mount(f"size={size}")
    try:
        yield lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_full_disk_is_one_sentence_and_the_next_run_resumes(tmp_path, soak):
    sizes = 20 if soak else 3
    given = world(tmp_path)
    run_to_folder(tmp_path / "want", **given)
    want = content(tmp_path / "want")
    largest = sum(len(data) for data in want.values())
    resumed = 0
    for size in np.geomspace(8 << 10, 0.9 * largest, sizes).astype(int).tolist():
        with small_disk(tmp_path / "disk", size) as resize:
            out = tmp_path / "disk" / "out"
            with pytest.raises(OutputError) as caught:
                run_to_folder(out, **given)
            message = str(caught.value)
            assert "space" in message
            assert message.isprintable()
            assert not (out / "provenance.json").exists()
            assert not list(out.rglob("*.tmp*")), "temporary files are left"
            kept = slices_in(pieces(out, "membrane"))
            resize(64 * largest)
            found, new = run_to_folder(out, **given)
            assert new
            assert found.provenance["resumed"]["slices_segmented"] == kept
            resumed += kept > 0
            assert content(out) == want
            assert {path.name for path in out.iterdir()} - {CHECKSUM_FILE} == set(want)
    assert resumed > sizes // 2
