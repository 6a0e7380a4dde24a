"""Training: that it learns, is reproducible, can be resumed, and says what is wrong with its input."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import t3ssfast
from t3ssfast.candidates import Candidates
from t3ssfast.cli.train import app
from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import ConfigError, DeviceError, InputError, ModelError
from t3ssfast.io import write
from t3ssfast.io.particles import export
from t3ssfast.models import load_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training import classifier, loop, train_classifier, train_segmenter
from t3ssfast.training.augment import Placing, augment_values, random_placing, sample
from t3ssfast.training.bundled import train_bundled
from t3ssfast.training.calibrate import rewrite_metadata
from t3ssfast.training.data import prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World
from t3ssfast.training.options import AugmentOptions, ClassifierOptions, SegmenterOptions, make_options
from threads import on_threads

SEGMENTER = {
    "steps": 24,
    "steps_per_epoch": 12,
    "batch": 2,
    "patch_px": 32,
    "depth": 2,
    "base": 4,
    "validation_patches": 2,
    "learning_rate": 1e-2,
}
CLASSIFIER = {
    "steps": 12,
    "steps_per_epoch": 6,
    "batch": 32,
    "rounds": 1,
    "channels": (3, 4),
    "hidden": (16, 8),
    "window_px": 24,
    "negatives_per_tomogram": 60,
    "mined_slices": 3,
    "mined_per_tomogram": 20,
    "learning_rate": 5e-3,
}


@pytest.fixture(autouse=True)
def one_thread():
    with on_threads(1):
        yield


def example(seed, shape=(10, 72, 72), kinds=("t3ss", "t3ss", "flagellar_motor")):
    """A dark sheet with dark blobs on it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    membrane = (abs(x - 36) < 2).astype(np.uint8)
    values = rng.normal(size=shape) - 3.0 * membrane
    centre = np.array([[3, 14, 36], [6, 38, 36], [5, 62, 36]])[: len(kinds)]
    for zyx in centre:
        distance = ((z - zyx[0]) ** 2 + (y - zyx[1]) ** 2 + (x - zyx[2]) ** 2) ** 0.5
        values -= 6.0 * (distance < 5)
    picks = Candidates(centre, np.ones(len(centre)), np.ones((len(centre), 3)), 13.6, shape, kind=kinds)
    return Tomogram(values.astype(np.float32), 13.6, f"toy_{seed}"), membrane, picks


@pytest.fixture(scope="module")
def toys():
    return [list(part) for part in zip(*(example(k) for k in range(3)), strict=True)]


def weights(path, kind):
    return load_model(path, model_kind=kind).module.state_dict()


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


class Killed(Exception):
    pass


@contextmanager
def killed_after(monkeypatch, saves):
    """Let a run die right after it has written so many checkpoints."""
    original = loop.Run.save
    count = 0

    def save(self, **state):
        nonlocal count
        original(self, **state)
        count += 1
        if count == saves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "save", save)
        with pytest.raises(Killed):
            yield


def test_the_segmenter_learns_and_is_reproducible(tmp_path, toys):
    tomograms, membranes, _ = toys
    path = train_segmenter(tomograms, membranes, tmp_path / "a.pt", seed=3, **SEGMENTER)
    rows = table(tmp_path / "a.training.csv")
    assert [row["step"] for row in rows] == [12, 24]
    assert rows[1]["training_loss"] < 0.95 * rows[0]["training_loss"]
    assert (tmp_path / "a.training.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "a.training.csv", "a.training.png"]
    said = load_model(path, model_kind="segmenter").metadata
    assert said.slices == 5
    assert said.voxel_size_angstrom == 13.6
    assert said.recipe["seed"] == 3
    assert said.recipe["tomograms"] == 3
    assert said.metrics["dice"] == pytest.approx(max(row["dice"] for row in rows), rel=1e-4)
    train_segmenter(tomograms, membranes, tmp_path / "b.pt", seed=3, **SEGMENTER)
    assert_same_weights(weights(tmp_path / "a.pt", "segmenter"), weights(tmp_path / "b.pt", "segmenter"))


def test_a_killed_segmenter_goes_on_as_if_nothing_had_happened(tmp_path, toys, monkeypatch):
    tomograms, membranes, _ = toys
    options = SEGMENTER | {"steps": 12, "steps_per_epoch": 4}
    train_segmenter(tomograms, membranes, tmp_path / "whole.pt", **options)
    with killed_after(monkeypatch, 2):
        train_segmenter(tomograms, membranes, tmp_path / "killed.pt", **options)
    assert not (tmp_path / "killed.pt").exists()
    assert (tmp_path / "killed.pt.checkpoint").exists()
    with pytest.raises(ConfigError, match="other options"):
        train_segmenter(tomograms, membranes, tmp_path / "killed.pt", resume=True, **options | {"seed": 9})
    with monkeypatch.context() as patch:
        steps = []
        original = loop.learning_rate
        patch.setattr(loop, "learning_rate", lambda step, o: steps.append(step) or original(step, o))
        train_segmenter(tomograms, membranes, tmp_path / "killed.pt", resume=True, **options)
    assert steps == [8, 9, 10, 11]
    assert_same_weights(
        weights(tmp_path / "whole.pt", "segmenter"), weights(tmp_path / "killed.pt", "segmenter")
    )
    assert table(tmp_path / "whole.training.csv") == table(tmp_path / "killed.training.csv")
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_classifier_learns_and_carries_its_rule(tmp_path, toys):
    tomograms, membranes, picks = toys
    options = CLASSIFIER | {"steps": 40, "steps_per_epoch": 20}
    path = train_classifier(tomograms, picks, membranes, tmp_path / "c.pt", **options)
    rows = table(tmp_path / "c.training.csv")
    assert [(row["phase"], row["step"]) for row in rows] == [(0, 20), (0, 40), (1, 20), (1, 40)]
    assert rows[1]["training_loss"] < rows[0]["training_loss"]
    said = load_model(path, model_kind="classifier").metadata
    assert said.window_px == 24
    assert said.window_nm == pytest.approx(24 * 1.36)
    assert said.classes == ("background", "t3ss")
    assert said.preselect["size"] == 24
    assert said.preselect["positives_kept"] > 0.98
    assert json.loads(said.to_json())["preselect"] == said.preselect


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_a_killed_classifier_goes_on_as_if_nothing_had_happened(tmp_path, toys, monkeypatch, saves):
    tomograms, membranes, picks = toys
    train_classifier(tomograms, picks, membranes, tmp_path / "whole.pt", **CLASSIFIER)
    with killed_after(monkeypatch, saves):
        train_classifier(tomograms, picks, membranes, tmp_path / "killed.pt", **CLASSIFIER)
    train_classifier(tomograms, picks, membranes, tmp_path / "killed.pt", resume=True, **CLASSIFIER)
    assert_same_weights(
        weights(tmp_path / "whole.pt", "classifier"), weights(tmp_path / "killed.pt", "classifier")
    )


def in_a_process(*arguments, command=(sys.executable,), wait=True):
    """Run the toy training by itself."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [
                str(Path(t3ssfast.__file__).parent.parent),
                str(Path(__file__).parent),
                str(Path(__file__).parents[1]),
            ]
        ),
        "OMP_NUM_THREADS": "1",
    }
    given = [*command, str(Path(__file__).parent / "train_toy.py"), *map(str, arguments)]
    process = subprocess.Popen(given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if wait:
        output = process.communicate(timeout=240)[0].decode()
        assert process.returncode == 0, output
    return process


def test_a_training_that_was_shot_goes_on_to_the_same_weights(tmp_path):
    in_a_process(tmp_path / "whole.pt")
    process = in_a_process(tmp_path / "shot.pt", "--slow", wait=False)
    checkpoint = tmp_path / "shot.pt.checkpoint"
    try:
        end = time.monotonic() + 240
        while not checkpoint.exists():
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "shot.pt").exists()
    in_a_process(tmp_path / "shot.pt", "--resume")
    assert_same_weights(*(weights(tmp_path / f"{name}.pt", "classifier") for name in ("shot", "whole")))
    shot, whole = (load_model(tmp_path / f"{name}.pt", model_kind="classifier") for name in ("shot", "whole"))
    assert shot.metadata == whole.metadata
    assert (tmp_path / "shot.training.csv").read_bytes() == (tmp_path / "whole.training.csv").read_bytes()


def test_two_processes_train_one_model(tmp_path):
    # What `torchrun` is, from the environment that runs the tests.
    torchrun = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("--no-python", sys.executable),
    )
    in_a_process(tmp_path / "two.pt", command=torchrun)
    ranks = [(tmp_path / f"rank{k}.txt").read_text() for k in range(2)]
    assert ranks[0] == ranks[1]
    rows = table(tmp_path / "two.training.csv")
    assert [(row["phase"], row["step"]) for row in rows] == [
        (p, s) for p in (0, 1) for s in (4, 8, 12, 16, 20)
    ]
    assert rows[4]["training_loss"] < rows[0]["training_loss"]
    assert (
        load_model(tmp_path / "two.pt", model_kind="classifier").metadata.metrics["average_precision"] > 0.3
    )
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_batch_is_shared_equally_and_drawn_apart():
    alone, first, second = (
        World(0, 1, torch.device("cpu")),
        World(0, 2, torch.device("cpu")),
        World(1, 2, torch.device("cpu")),
    )
    assert (alone.share(7), alone.stream, alone.leads) == (7, (), True)
    assert (first.share(8), first.stream, second.stream, second.leads) == (4, (0,), (1,), False)
    with pytest.raises(ConfigError, match="cannot share"):
        first.share(7)


def test_a_training_goes_on_from_a_trained_classifier(tmp_path, toys):
    tomograms, membranes, picks = toys
    path = train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", **CLASSIFIER | {"rounds": 0})
    few = {
        name: value for name, value in CLASSIFIER.items() if name not in ("window_px", "channels", "hidden")
    } | {"rounds": 0, "steps": 2, "learning_rate": 1e-7}
    train_classifier(tomograms, picks, membranes, tmp_path / "b.pt", start=path, **few)
    before, after = (weights(tmp_path / f"{name}.pt", "classifier") for name in "ab")
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-4, rtol=0)
    # Its coarse look fits any classifier, and is carried over.
    look = CoarseScan().to_dict()
    rewrite_metadata(path, "classifier", preselect=look)
    train_classifier(tomograms, picks, membranes, tmp_path / "d.pt", start=path, **few)
    assert load_model(tmp_path / "d.pt", model_kind="classifier").metadata.preselect == look
    other = few | {"channels": (5, 4)}
    with pytest.raises(ModelError, match="cannot be trained further"):
        train_classifier(tomograms, picks, membranes, tmp_path / "c.pt", start=path, **other)


def test_one_tomogram_with_few_picks_keeps_one_to_validate_with(toys):
    tomograms, membranes, picks = toys
    options = make_options(ClassifierOptions, CLASSIFIER)
    sources = prepare_tomograms(tomograms[:1], membranes[:1], picks[:1], options)
    low = replace(sources[0], targets_zyx=np.array([[1.0, 14, 36], [4.0, 38, 36]]))
    training, held_out = split_tomograms([low], options)
    assert training[0].z1 == held_out[0].z0 == 4
    assert len(held_out[0].centres_in_reach(low.targets_zyx)) == 1
    assert len(training[0].centres_in_reach(low.targets_zyx)) == 1


def test_mining_finds_what_scores_high_and_is_no_particle(toys, monkeypatch):
    tomograms, membranes, picks = toys
    options = make_options(ClassifierOptions, CLASSIFIER)
    source = prepare_tomograms(tomograms[:1], membranes[:1], picks[:1], options)[0]

    def dark(slab, region, model, *, device):
        index = np.flatnonzero(region)
        return index, np.clip(-slab.ravel()[index] / 6, 0, 1)

    class Model:
        device = "cpu"

    monkeypatch.setattr(classifier, "classify_slab", dark)
    options = replace(options, mined_slices=10, search_distance_nm=5.0)
    found = classifier._mine(Model(), [source], options, [0])[0]
    assert 0 < len(found) <= options.mined_per_tomogram
    distance = np.linalg.norm(found[:, None] - source.targets_zyx[None], axis=2) * 1.36
    assert distance.min() > options.negative_distance_nm
    # The best of them lies in the blob that is picked as something else.
    assert np.linalg.norm(found[0] - source.others_zyx[0]) < 6
    assert abs(found[:, 2] - 36).max() * 1.36 < 5.0 + 2 * 1.36


def test_windows_are_cut_where_they_are_centred(toys):
    tomograms, membranes, picks = toys
    options = make_options(ClassifierOptions, CLASSIFIER)
    source = prepare_tomograms(tomograms[:1], membranes[:1], picks[:1], options)[0]
    positions = np.array([[4, 30, 40], [0, 0, 0], [9, 71, 3]])
    cut = classifier._cut_all([source], [positions], options)
    middle = cut.shape[-1] // 2
    slab = source.prepared.slab(0, 10).astype(np.float16)
    for k, (z, y, x) in enumerate(positions):
        assert cut[k, middle, middle] == slab[z, y, x]
    pool = classifier._Pool(cut[:1], cut[1:2], cut[2:], cut[:0])
    windows, target = pool.as_they_are(options)
    np.testing.assert_array_equal(windows[0, 0], slab[4, 30 - 12 : 30 + 12, 40 - 12 : 40 + 12])
    assert target.tolist() == [1, 0, 0]


def test_sampling_places_pixels_exactly():
    image = torch.randn(2, 1, 21, 30)
    straight = [Placing((10.0, 15.0), np.eye(2))] * 2
    cut = sample(image, straight, 8, middle=4)
    torch.testing.assert_close(cut, image[:, :, 6:14, 11:19], atol=2e-5, rtol=0)
    quarter = [Placing((10.0, 15.0), np.array([[0.0, -1.0], [1.0, 0.0]]))] * 2
    turned = sample(image, quarter, 9)
    torch.testing.assert_close(turned, torch.rot90(image[:, :, 6:15, 11:20], -1, (2, 3)), atol=2e-5, rtol=0)


def test_augmentation_follows_its_generator_and_its_limits():
    images = torch.randn(16, 1, 24, 24)
    options = AugmentOptions()
    a = augment_values(images, np.random.default_rng(1), options)
    assert torch.equal(a, augment_values(images, np.random.default_rng(1), options))
    assert not torch.equal(a, augment_values(images, np.random.default_rng(2), options))
    assert torch.isfinite(a).all()
    assert a.abs().max() <= options.clip
    assert torch.isfinite(augment_values(torch.zeros(2, 1, 8, 8), np.random.default_rng(0), options)).all()
    none = AugmentOptions(
        scale=(1, 1), free_rotation=0, spectrum=0, blur_px=0, noise=0, contrast=(1, 1), shift=0, gamma=(1, 1)
    )
    torch.testing.assert_close(augment_values(images, np.random.default_rng(0), none), images)
    placing = random_placing(np.random.default_rng(0), (1.0, 2.0), none)
    np.testing.assert_allclose(abs(np.linalg.det(placing.matrix)), 1.0)
    np.testing.assert_allclose(np.sort(abs(placing.matrix).ravel()), [0, 0, 1, 1], atol=1e-12)


def test_validation_is_by_tomogram(toys):
    tomograms, membranes, picks = toys
    options = make_options(ClassifierOptions, CLASSIFIER)
    sources = prepare_tomograms(tomograms, membranes, picks, options)
    training, held_out = split_tomograms(sources, options)
    assert len(training) == 2
    assert len(held_out) == 1
    assert all(held_out[0] is not source for source in training)
    training, held_out = split_tomograms(sources[:1], options)
    # Its last slices, from where there is a T3SS to validate with.
    assert training[0].z1 == held_out[0].z0 == 6


def test_picks_of_another_binning_are_rescaled(toys):
    tomograms, _, picks = toys
    options = make_options(ClassifierOptions, CLASSIFIER)
    chosen = picks[0]
    finer = replace(chosen, centre_zyx=(chosen.centre_zyx + 0.5) * 4 - 0.5, voxel_size_angstrom=13.6 / 4)
    a, b = (prepare_tomograms(tomograms[:1], None, [p], options)[0] for p in (chosen, finer))
    np.testing.assert_allclose(a.targets_zyx, b.targets_zyx, atol=1e-4)


def test_bad_input_is_named(tmp_path, toys):
    tomograms, membranes, picks = toys
    out = tmp_path / "x.pt"
    with pytest.raises(InputError, match="no tomogram"):
        train_segmenter([], [], out)
    with pytest.raises(InputError, match="2 membranes for 3 tomograms"):
        train_segmenter(tomograms, membranes[:2], out)
    with pytest.raises(InputError, match="empty"):
        train_segmenter(tomograms, [m * 0 for m in membranes], out)
    with pytest.raises(InputError, match="shape"):
        train_segmenter(tomograms, [m[1:] for m in membranes], out)
    with pytest.raises(ConfigError, match="'stepz'"):
        train_segmenter(tomograms, membranes, out, stepz=3)
    with pytest.raises(ConfigError, match=r"slices is 4; give an odd number up to 15"):
        train_segmenter(tomograms, membranes, out, slices=4)
    with pytest.raises(ConfigError, match="patch_px"):
        train_segmenter(tomograms, membranes, out, patch_px=100)
    with pytest.raises(ConfigError, match="learning_rate"):
        train_segmenter(tomograms, membranes, out, learning_rate=-1.0)
    with pytest.raises(DeviceError, match="nowhere"):
        train_segmenter(tomograms, membranes, out, device="nowhere")
    nothing = [replace(p, kind=np.array(["gold_bead"] * len(p))) for p in picks]
    with pytest.raises(InputError, match="no T3SS"):
        train_classifier(tomograms, nothing, membranes, out, **CLASSIFIER)
    outside = [replace(p, centre_zyx=p.centre_zyx + 100) for p in picks]
    with pytest.raises(InputError, match="outside toy_0"):
        train_classifier(tomograms, outside, membranes, out, **CLASSIFIER)
    with pytest.raises(ModelError, match="diverged"):
        train_segmenter(tomograms, membranes, out, **SEGMENTER | {"learning_rate": 9.9, "weight_decay": 9.9})
    (tmp_path / "x.pt.checkpoint").write_bytes(b"half")
    with pytest.raises(ModelError, match="checkpoint"):
        train_segmenter(tomograms, membranes, out, resume=True, **SEGMENTER)
    with pytest.raises(ConfigError, match="recipe"):
        train_bundled(tmp_path, size="huge")


def test_the_schedule_rises_and_falls():
    options = SegmenterOptions(steps=100, learning_rate=1.0)
    rates = [loop.learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert 0.01 < rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_training_stops_when_nothing_improves(tmp_path, toys, monkeypatch):
    tomograms, membranes, _ = toys
    options = SEGMENTER | {"steps": 40, "steps_per_epoch": 2, "patience": 2, "learning_rate": 1e-9}
    train_segmenter(tomograms, membranes, tmp_path / "s.pt", **options)
    assert len(table(tmp_path / "s.training.csv")) < 20


def test_the_commands_train_from_files(tmp_path, toys, monkeypatch):
    for k, (tomogram, membrane, picks) in enumerate(zip(*toys, strict=True)):
        write(tmp_path / f"{k}.mrc", tomogram.data, 13.6)
        write(tmp_path / f"{k}_membrane.mrc", membrane, 13.6)
        export(picks, tmp_path / f"{k}.csv", format="csv")
    # Small enough for a test; what the command itself passes on wins.
    monkeypatch.setattr("t3ssfast.training.train_segmenter", partial(train_segmenter, **SEGMENTER))
    monkeypatch.setattr("t3ssfast.training.train_classifier", partial(train_classifier, **CLASSIFIER))
    volumes = [str(tmp_path / f"{k}.mrc") for k in range(3)]
    masks = [x for k in range(3) for x in ("-m", str(tmp_path / f"{k}_membrane.mrc"))]
    picks = [x for k in range(3) for x in ("-p", str(tmp_path / f"{k}.csv"))]
    run = CliRunner()
    out = tmp_path / "s.pt"
    done = run.invoke(app, ["segmenter", *volumes, *masks, "-o", str(out), "--steps", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["figures"]) == {"dice", "precision", "recall", "validation_loss"}
    done = run.invoke(
        app, ["classifier", *volumes, *picks, *masks, "-o", str(tmp_path / "c.pt"), "--rounds", "0"]
    )
    assert done.exit_code == 0, done.output
    assert "average_precision" in done.stdout
    assert load_model(tmp_path / "c.pt", model_kind="classifier").metadata.recipe["rounds"] == 0
    refused = run.invoke(app, ["classifier", *volumes, *picks[:4], "-o", str(out)])
    assert isinstance(refused.exception, InputError)
    assert "2 picks for 3 tomograms" in str(refused.exception)
