"""The training loop: learning, reproducibility, checkpoints, data-parallel training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from training_toys import (
    CLASSIFIER,
    SEGMENTER,
    VERIFIER,
    assert_same_weights,
    checkpoints,
    read_table,
    weights,
)

import t3ssfast
from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import CheckpointWarning, ConfigError, ModelError
from t3ssfast.models import load_model
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.training import loop, train_classifier, train_segmenter, train_verifier
from t3ssfast.training.distributed import World
from t3ssfast.training.options import SegmenterOptions


class Interrupted(Exception):
    pass


@contextmanager
def interrupted_after(monkeypatch, saves):
    """Raise in place of returning from the given save of a checkpoint."""
    original = CheckpointStore.save
    count = 0

    def save(store, name, /, **arrays):
        nonlocal count
        original(store, name, **arrays)
        count += 1
        if count == saves:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save)
        with pytest.raises(Interrupted):
            yield


@contextmanager
def recorded_steps(monkeypatch):
    """Yield a list of the steps that are taken."""
    steps = []
    original = loop.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", lambda step, o: steps.append(step) or original(step, o))
        yield steps


@pytest.fixture
def train(sheets, balls):
    """Train a model of a kind with few steps and three epochs."""
    tomograms, membranes, picks = sheets

    def run(model_kind, out, **options):
        few = {"steps": 12, "steps_per_epoch": 4, **options}
        if model_kind == "segmenter":
            return train_segmenter(tomograms, membranes, out, **SEGMENTER | few)
        if model_kind == "classifier":
            return train_classifier(tomograms, picks, membranes, out, **CLASSIFIER | few)
        return train_verifier(*balls, out, **VERIFIER | few)

    return run


def test_segmenter_learns_reproducibly(tmp_path, sheets):
    tomograms, membranes, _ = sheets
    path = train_segmenter(tomograms, membranes, tmp_path / "a.pt", seed=3, **SEGMENTER)
    rows = read_table(tmp_path / "a.training.csv")
    assert [row["step"] for row in rows] == [12, 24]
    assert rows[1]["training_loss"] < 0.95 * rows[0]["training_loss"]
    assert (tmp_path / "a.training.png").read_bytes()[:4] == b"\x89PNG"
    files = ["a.pt", "a.safetensors", "a.training.csv", "a.training.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    metadata = load_model(path, model_kind="segmenter").metadata
    assert metadata.slices == 5
    assert metadata.voxel_size_angstrom == 13.6
    assert metadata.recipe["seed"] == 3
    assert metadata.recipe["tomograms"] == 3
    assert metadata.metrics["dice"] == pytest.approx(max(row["dice"] for row in rows), rel=1e-4)
    train_segmenter(tomograms, membranes, tmp_path / "b.pt", seed=3, **SEGMENTER)
    assert_same_weights(tmp_path / "a.pt", tmp_path / "b.pt", "segmenter")


def test_classifier_learns_and_has_a_preselection(tmp_path, sheets):
    tomograms, membranes, picks = sheets
    options = CLASSIFIER | {"steps": 40, "steps_per_epoch": 20}
    path = train_classifier(tomograms, picks, membranes, tmp_path / "c.pt", **options)
    rows = read_table(tmp_path / "c.training.csv")
    assert [(row["phase"], row["step"]) for row in rows] == [(0, 20), (0, 40), (1, 20), (1, 40)]
    assert rows[1]["training_loss"] < rows[0]["training_loss"]
    metadata = load_model(path, model_kind="classifier").metadata
    assert metadata.window_px == 24
    assert metadata.window_nm == pytest.approx(24 * 1.36)
    assert metadata.classes == ("background", "t3ss")
    assert metadata.preselect == CoarseScan().to_dict()


def test_verifier_learns_reproducibly(tmp_path, balls):
    path = train_verifier(*balls, tmp_path / "v.pt", progress=False, **VERIFIER)
    curve = np.genfromtxt(tmp_path / "v.training.csv", delimiter=",", names=True)
    assert curve["average_precision"][-1] > 0.95
    assert curve["validation_loss"][-1] < curve["validation_loss"][0]
    metadata = load_model(path, model_kind="verifier").metadata
    assert metadata.window_px == 16
    assert metadata.recipe["tomograms"] == 5
    again = train_verifier(*balls, tmp_path / "w.pt", progress=False, **VERIFIER)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("model_kind", "saves"),
    [("segmenter", 2), *(("classifier", k) for k in (1, 3, 4, 6)), ("verifier", 1)],
)
def test_resumed_training_gives_the_same_model(tmp_path, train, monkeypatch, model_kind, saves):
    train(model_kind, tmp_path / "whole.pt")
    with interrupted_after(monkeypatch, saves):
        train(model_kind, tmp_path / "resumed.pt")
    assert not (tmp_path / "resumed.pt").exists()
    assert len(checkpoints(tmp_path)) == 1
    with recorded_steps(monkeypatch) as steps:
        train(model_kind, tmp_path / "resumed.pt", resume=True)
    # The classifier saves its state also between its two phases of three epochs.
    first = {("classifier", 4): 0, ("classifier", 6): 8}.get((model_kind, saves), 4 * saves)
    assert steps == [*range(first, 12), *(range(12) if model_kind == "classifier" and saves < 4 else ())]
    assert_same_weights(tmp_path / "whole.pt", tmp_path / "resumed.pt", model_kind)
    assert read_table(tmp_path / "whole.training.csv") == read_table(tmp_path / "resumed.training.csv")
    assert not checkpoints(tmp_path)


@pytest.mark.parametrize("changed", [{"seed": 9}, {"steps": 8}])
def test_checkpoint_of_other_options_is_left_alone(tmp_path, train, monkeypatch, changed):
    with interrupted_after(monkeypatch, 2):
        train("segmenter", tmp_path / "a.pt")
    (checkpoint,) = checkpoints(tmp_path)
    with (
        recorded_steps(monkeypatch) as steps,
        pytest.warns(CheckpointWarning, match="starts from the beginning"),
    ):
        train("segmenter", tmp_path / "a.pt", resume=True, **changed)
    assert steps[0] == 0
    assert checkpoints(tmp_path) == [checkpoint]
    with recorded_steps(monkeypatch) as steps:
        train("segmenter", tmp_path / "a.pt", resume=True)
    assert steps[0] == 8


def test_checkpoint_of_other_picks_is_left_alone(tmp_path, sheets, monkeypatch):
    tomograms, membranes, picks = sheets
    with interrupted_after(monkeypatch, 1):
        train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", **CLASSIFIER)
    moved = [p[:2] for p in picks]
    with pytest.warns(CheckpointWarning, match="another input"):
        train_classifier(tomograms, moved, membranes, tmp_path / "a.pt", resume=True, **CLASSIFIER)


def test_damaged_checkpoint_is_ignored(tmp_path, train, monkeypatch):
    train("segmenter", tmp_path / "whole.pt")
    with interrupted_after(monkeypatch, 2):
        train("segmenter", tmp_path / "a.pt")
    (piece,) = checkpoints(tmp_path)[0].iterdir()
    piece.write_bytes(piece.read_bytes()[:1000])
    train("segmenter", tmp_path / "a.pt", resume=True)
    assert_same_weights(tmp_path / "whole.pt", tmp_path / "a.pt", "segmenter")


def run_process(*arguments, command=(sys.executable,), wait=True):
    """Run the training of `train_process.py`."""
    here = Path(__file__).parent
    paths = (Path(t3ssfast.__file__).parent.parent, here, here.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    given = [*command, str(here / "train_process.py"), *map(str, arguments)]
    process = subprocess.Popen(given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if wait:
        output = process.communicate(timeout=240)[0].decode()
        assert process.returncode == 0, output
    return process


def test_killed_process_resumes_to_the_same_model(tmp_path):
    run_process(tmp_path / "whole.pt")
    process = run_process(tmp_path / "killed.pt", "--slow", wait=False)
    try:
        end = time.monotonic() + 240
        while not list(tmp_path.glob(".t3ssfast-killed.pt-*/state.npz")):
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.pt").exists()
    run_process(tmp_path / "killed.pt", "--resume")
    assert_same_weights(tmp_path / "killed.pt", tmp_path / "whole.pt", "classifier")
    killed, whole = (load_model(tmp_path / f"{n}.pt", model_kind="classifier") for n in ("killed", "whole"))
    assert killed.metadata == whole.metadata
    assert (tmp_path / "killed.training.csv").read_bytes() == (tmp_path / "whole.training.csv").read_bytes()


def test_two_processes_train_one_model(tmp_path):
    # The same as `torchrun`, from the environment that runs the tests.
    torchrun = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("--no-python", sys.executable),
    )
    run_process(tmp_path / "two.pt", command=torchrun)
    assert (tmp_path / "rank0.txt").read_text() == (tmp_path / "rank1.txt").read_text()
    rows = read_table(tmp_path / "two.training.csv")
    assert [(row["phase"], row["step"]) for row in rows] == [
        (p, s) for p in (0, 1) for s in (4, 8, 12, 16, 20)
    ]
    assert rows[4]["training_loss"] < rows[0]["training_loss"]
    metrics = load_model(tmp_path / "two.pt", model_kind="classifier").metadata.metrics
    assert metrics["average_precision"] > 0.3
    assert not checkpoints(tmp_path)


def test_processes_share_a_batch_equally_with_different_seeds():
    cpu = torch.device("cpu")
    alone, first, second = World(0, 1, cpu), World(0, 2, cpu), World(1, 2, cpu)
    assert (alone.local_batch(7), alone.seed, alone.is_leader) == (7, (), True)
    assert (first.local_batch(8), first.seed, second.seed, second.is_leader) == (4, (0,), (1,), False)
    with pytest.raises(ConfigError, match="cannot be divided equally"):
        first.local_batch(7)


def test_training_starts_from_the_weights_of_a_classifier(tmp_path, sheets):
    tomograms, membranes, picks = sheets
    path = train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", **CLASSIFIER | {"rounds": 0})
    few = {k: v for k, v in CLASSIFIER.items() if k not in ("window_px", "channels", "hidden")}
    few |= {"rounds": 0, "steps": 2, "learning_rate": 1e-7}
    train_classifier(tomograms, picks, membranes, tmp_path / "b.pt", start=path, **few)
    before, after = (weights(tmp_path / f"{name}.pt", "classifier") for name in "ab")
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-4, rtol=0)
    with pytest.raises(ModelError, match="cannot be trained further"):
        train_classifier(
            tomograms, picks, membranes, tmp_path / "c.pt", start=path, **few | {"channels": (5, 4)}
        )


def test_training_starts_from_the_weights_of_a_verifier(tmp_path, balls):
    start = train_verifier(*balls, tmp_path / "v.pt", progress=False, **VERIFIER | {"steps": 2})
    few = [part[:1] for part in balls]
    tuned = train_verifier(*few, tmp_path / "t.pt", start=start, progress=False, steps=2, batch=4, seed=1)
    assert load_model(tuned, model_kind="verifier").metadata.window_px == 16
    with pytest.raises(ModelError, match="AxialNet"):
        train_verifier(*balls, tmp_path / "n.pt", start=start, **VERIFIER | {"hidden": 16, "steps": 2})
    assert not (tmp_path / "n.pt").exists()


def test_without_progress_nothing_is_printed(tmp_path, balls, capfd):
    train_verifier(*balls, tmp_path / "v.pt", progress=False, **VERIFIER | {"steps": 2})
    assert capfd.readouterr() == ("", "")


def test_learning_rate_rises_and_falls():
    options = SegmenterOptions(steps=100, learning_rate=1.0)
    rates = [loop.learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert 0.01 < rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_training_stops_early_without_improvement(tmp_path, sheets):
    tomograms, membranes, _ = sheets
    options = SEGMENTER | {"steps": 40, "steps_per_epoch": 2, "patience": 2, "learning_rate": 1e-9}
    train_segmenter(tomograms, membranes, tmp_path / "s.pt", **options)
    assert len(read_table(tmp_path / "s.training.csv")) < 20


def test_divergence_is_reported(tmp_path, sheets):
    tomograms, membranes, _ = sheets
    options = SEGMENTER | {"learning_rate": 9.9, "weight_decay": 9.9}
    with pytest.raises(ModelError, match="diverged"):
        train_segmenter(tomograms, membranes, tmp_path / "x.pt", **options)
