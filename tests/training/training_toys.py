"""Small tomograms and options for the tests of the training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from t3ssfast.candidates import Candidates
from t3ssfast.models import load_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.options import AugmentOptions

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
VERIFIER = {
    "steps": 30,
    "steps_per_epoch": 15,
    "batch": 8,
    "height_px": 16,
    "channels": (3, 4, 4, 4),
    "hidden": 8,
    "learning_rate": 1e-2,
    "jitter_nm": 1.0,
    "stretch": (1.0, 1.0),
    "profile": 0.0,
    "augment": AugmentOptions(scale=(1.0, 1.0), spectrum=0.0, blur_px=0.0, noise=0.0, gamma=(1.0, 1.0)),
}


def sheet_example(seed, shape=(10, 72, 72), kinds=("t3ss", "t3ss", "flagellar_motor")):
    """Return a tomogram of a dark sheet with dark balls on it, its membrane and its picks."""
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


def ball_example(seed, shape=(24, 64, 64)):
    """Return a tomogram with two dark T3SS, its picks, and candidates, two of which are bright and false."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    values = rng.normal(size=shape)
    true = np.array([[8.0, 14.0, 14.0], [14.0, 50.0, 20.0]]) + rng.uniform(-1, 1, (2, 3))
    false = np.array([[12.0, 16.0, 50.0], [10.0, 50.0, 48.0]])
    for sign, centres in ((-6.0, true), (6.0, false)):
        for zyx in centres:
            values += sign * ((z - zyx[0]) ** 2 + (y - zyx[1]) ** 2 + (x - zyx[2]) ** 2 < 16)

    def particles(centres):
        ones = np.ones(len(centres))
        return Candidates(centres, ones, np.ones((len(centres), 3)), 13.6, shape)

    tomogram = Tomogram(values.astype(np.float32), 13.6, f"balls_{seed}")
    return tomogram, particles(true), particles(np.concatenate([false, true]))


def rod_example(seed, shape=(48, 48, 48)):
    """Return a tomogram of a rod, its pick, and candidates: the rod with a wrong axis, and a false one."""
    rng = np.random.default_rng(seed)
    axis, error = rng.normal(size=(2, 3))
    axis /= np.linalg.norm(axis)
    wrong_axis = axis + 0.2 * error / np.linalg.norm(error)
    position = np.moveaxis(np.indices(shape), 0, -1) - 23.5
    rod = (np.linalg.norm(np.cross(position, axis), axis=-1) < 2) & (np.abs(position @ axis) < 16)
    values = rng.normal(size=shape) * 0.3 - 8.0 * rod
    picks = Candidates([[23.5] * 3], [1.0], [axis], 13.6, shape)
    candidates = Candidates([[23.5] * 3, [5, 5, 5]], [1.0, 0.5], [wrong_axis, [1, 0, 0]], 13.6, shape)
    return Tomogram(values.astype(np.float32), 13.6, f"rod_{seed}"), picks, candidates


def columns(examples):
    """Return lists of the parts of examples."""
    return [list(part) for part in zip(*examples, strict=True)]


def weights(path, model_kind):
    """Return the weights of a model file."""
    return load_model(path, model_kind=model_kind).module.state_dict()


def assert_same_weights(first, second, model_kind):
    """Assert that two model files have the same weights to the last bit."""
    a, b = weights(first, model_kind), weights(second, model_kind)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def read_table(path):
    """Return the rows of a CSV file of numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def checkpoints(folder: Path):
    """Return the checkpoints in a folder."""
    return sorted(folder.glob(".t3ssfast-*"))
