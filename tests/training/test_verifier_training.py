"""Training of the verifier: that it learns, and what it is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError, ModelError
from t3ssfast.models import load_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training import train_verifier
from t3ssfast.training.data import prepare_tomograms
from t3ssfast.training.options import AugmentOptions, VerifierOptions, make_options
from t3ssfast.training.verifier import _Pool, _Shown

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


def box_example(seed, shape=(24, 64, 64)):
    """Dark balls that are T3SS, light ones that a detection took for some."""
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

    tomogram = Tomogram(values.astype(np.float32), 13.6, f"boxes_{seed}")
    return tomogram, particles(true), particles(np.concatenate([false, true]))


@pytest.fixture(scope="module")
def boxes():
    return [list(part) for part in zip(*(box_example(k) for k in range(5)), strict=True)]


def test_a_verifier_learns_to_tell_and_to_place(tmp_path, boxes):
    path = train_verifier(*boxes, tmp_path / "v.pt", progress=False, **VERIFIER)
    curve = np.genfromtxt(tmp_path / "v.training.csv", delimiter=",", names=True)
    assert curve["average_precision"][-1] > 0.95
    assert curve["validation_loss"][-1] < curve["validation_loss"][0]
    metadata = load_model(path, model_kind="verifier").metadata
    assert metadata.window_px == 16
    assert metadata.recipe["tomograms"] == 5
    again = train_verifier(*boxes, tmp_path / "w.pt", progress=False, **VERIFIER)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.3, 1.3)])
def test_targets_of_a_verifier_point_at_the_centre(boxes, stretch):
    """Augmented half-planes of balls: the darkest place of each is where its target says."""
    options = make_options(
        VerifierOptions,
        {
            **VERIFIER,
            "height_px": 32,
            "batch": 64,
            "positive_share": 0.5,
            "jitter_nm": 1.5,
            "stretch": stretch,
        },
    )
    sources = prepare_tomograms(boxes[0], None, boxes[1], options)
    shown = [_Shown.of(*each, options) for each in zip(sources, boxes[1], boxes[2], strict=True)]
    pool = _Pool.collect(sources, shown, options)
    assert len(pool.true) == 4 * len(sources)  # as they were picked, and as they were found
    assert len(pool.false) == 2 * len(sources)
    drawn, target = pool.draw(np.random.default_rng(3), options)
    assert drawn.shape == (64, 12, 32, 16)
    assert target[:32, 0].min() == 1
    assert target[32:].abs().max() == 0
    assert target[:32, 1:].abs().max() > 1.5
    away = torch.arange(16.0) + 0.5
    rows = torch.arange(32.0) - 13
    # Beyond lies the mirror image of the ball; and a ring counts by its length.
    near = rows[:, None] ** 2 + away**2 < 81
    dark = (-drawn[:32] - 2).clamp_min(0) * near * away
    total = dark.sum(dim=(1, 2, 3))
    angle = 2 * np.pi * torch.arange(12) / 12
    seen = [
        (dark.sum(dim=(1, 3)) * rows).sum(dim=1),
        ((dark * away).sum(dim=(2, 3)) * torch.cos(angle)).sum(dim=1),
        ((dark * away).sum(dim=(2, 3)) * torch.sin(angle)).sum(dim=1),
    ]
    for axis, sums in enumerate(seen):
        assert (sums / total - target[:32, 1 + axis]).abs().median() < 0.5
    # Balls are longer along the axis by the square root of the factor.
    along = (dark.sum(dim=(1, 3)) * (rows - target[:32, 1:2]) ** 2).sum(dim=1) / total
    assert (5 * along.median()).sqrt() == pytest.approx(4 * stretch[0] ** 0.5, abs=0.25)


def rod_example(seed, shape=(48, 48, 48)):
    """A dark rod that is a T3SS, picked with its axis and found with another."""
    rng = np.random.default_rng(seed)
    axis, wrong = rng.normal(size=(2, 3))
    axis /= np.linalg.norm(axis)
    wrong = axis + 0.2 * wrong / np.linalg.norm(wrong)
    place = np.moveaxis(np.indices(shape), 0, -1) - 23.5
    rod = (np.linalg.norm(np.cross(place, axis), axis=-1) < 2) & (np.abs(place @ axis) < 16)
    values = rng.normal(size=shape) * 0.3 - 8.0 * rod

    def particles(centre, normal):
        return Candidates([centre], [1.0], [normal], 13.6, shape)

    false = replace(particles([5, 5, 5], [1, 0, 0]), score=np.array([0.5], np.float32))
    found = particles([23.5] * 3, wrong)
    both = Candidates(
        *(
            np.concatenate([getattr(c, n) for c in (found, false)])
            for n in ("centre_zyx", "score", "normal_zyx")
        ),
        *(13.6, shape),
    )
    return Tomogram(values.astype(np.float32), 13.6, f"rod_{seed}"), particles([23.5] * 3, axis), both


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.4, 1.4)])
def test_targets_of_a_verifier_lean_towards_the_axis(stretch):
    """Half-planes of rods about wrong axes: the upper half of each rod is where its target says."""
    rods = [list(part) for part in zip(*(rod_example(k) for k in range(5)), strict=True)]
    given = {
        **VERIFIER,
        "height_px": 32,
        "batch": 64,
        "positive_share": 0.75,
        "jitter_nm": 0.0,
        "far_degrees": 30,
        "stretch": stretch,
    }
    options = make_options(VerifierOptions, given)
    sources = prepare_tomograms(rods[0], None, rods[1], options)
    shown = [_Shown.of(*each, options) for each in zip(sources, rods[1], rods[2], strict=True)]
    drawn, target = _Pool.collect(sources, shown, options).draw(np.random.default_rng(3), options)
    assert target[48:].abs().max() == 0
    drawn, lean = drawn[:48], target[:48, 4:]
    rows, away = torch.arange(32.0) - 13, torch.arange(16.0) + 0.5
    within = (rows > 2)[:, None] & (rows[:, None] ** 2 + away**2 < 100)
    dark = (-drawn - 3).clamp_min(0) * within * away
    angle = 2 * np.pi * torch.arange(12) / 12
    outwards = (dark * away).sum(dim=(2, 3))
    sideways = torch.stack(
        [(outwards * turn).sum(dim=1) for turn in (torch.cos(angle), torch.sin(angle))], dim=1
    )
    slope = sideways / (dark * rows[:, None]).sum(dim=(1, 2, 3))[:, None]
    steep = slope.norm(dim=1, keepdim=True)
    seen = slope * torch.atan(steep) / steep
    assert lean.norm(dim=1).max() > np.radians(25)
    # Of a box that was cut off at a face, the rod may be gone.
    assert (seen - lean).norm(dim=1).nanmedian() < np.radians(2)


def test_gains_are_alike_all_round_an_axis(boxes):
    drawn = []
    for profile in (0.0, 0.3):
        options = make_options(VerifierOptions, {**VERIFIER, "profile": profile})
        sources = prepare_tomograms(boxes[0], None, boxes[1], options)
        shown = [_Shown.of(*each, options) for each in zip(sources, boxes[1], boxes[2], strict=True)]
        drawn.append(_Pool.collect(sources, shown, options).draw(np.random.default_rng(3), options))
    assert torch.equal(drawn[0][1], drawn[1][1])
    seen = drawn[0][0].abs() > 1e-3
    gain = torch.where(seen, drawn[1][0] / drawn[0][0], torch.nan)
    middle = gain.nanmedian(dim=1, keepdim=True).values
    assert ((gain - middle).abs()[~gain.isnan()] < 1e-3 * middle.expand_as(gain)[~gain.isnan()]).all()
    assert 0.15 < float(middle.log().nan_to_num().std()) < 0.4


def test_a_particle_is_not_trained_on_and_held_out(boxes):
    options = make_options(VerifierOptions, VERIFIER)
    sources = prepare_tomograms(boxes[0], None, boxes[1], options)
    shown = [_Shown.of(*each, options) for each in zip(sources, boxes[1], boxes[2], strict=True)]
    pool = _Pool.collect(sources, shown, options)
    kept, held = pool.parted(options)
    assert len(kept.true) + len(held.true) == len(pool.true)
    assert len(held.true) % 2 == 0  # each as it was picked, and as it was found
    assert not {tuple(row) for row in kept.true.whose} & {tuple(row) for row in held.true.whose}


def test_picks_without_poses_take_those_of_what_was_found_beside_them(boxes):
    options = make_options(VerifierOptions, VERIFIER)
    source = prepare_tomograms(boxes[0][:1], None, boxes[1][:1], options)[0]
    picks, found = boxes[1][0], boxes[2][0]
    unposed = replace(picks, normal_zyx=np.tile([1.0, 0.0, 0.0], (len(picks), 1)))
    given, taken = (_Shown.of(source, known, found, options) for known in (picks, unposed))
    np.testing.assert_allclose(taken.picked.axis, found.normal_zyx[:2])
    np.testing.assert_array_equal(taken.picked.centre, given.picked.centre)
    alone = _Shown.of(source, unposed, found[:2], options)
    assert len(alone.picked.centre) == 0
    assert len(_Shown.of(source, picks, found[:0], options).picked.centre) == 2


def test_a_verifier_goes_on_from_another_and_says_what_is_missing(tmp_path, boxes):
    start = train_verifier(*boxes, tmp_path / "v.pt", progress=False, **{**VERIFIER, "steps": 2})
    few = [part[:1] for part in boxes]
    tuned = train_verifier(*few, tmp_path / "t.pt", start=start, progress=False, steps=2, batch=4, seed=1)
    assert load_model(tuned, model_kind="verifier").metadata.window_px == 16
    tomograms, picks, found = boxes
    with pytest.raises(InputError, match="no false candidate"):
        train_verifier(tomograms, picks, picks, tmp_path / "n.pt", progress=False, **VERIFIER)
    with pytest.raises(InputError, match="no T3SS"):
        train_verifier(
            tomograms, [p[:0] for p in picks], found, tmp_path / "n.pt", progress=False, **VERIFIER
        )
    with pytest.raises(InputError, match="candidates of 1"):
        train_verifier(tomograms, picks, found[:1], tmp_path / "n.pt", progress=False, **VERIFIER)
    with pytest.raises(ModelError, match="AxialNet"):
        train_verifier(
            *boxes, tmp_path / "n.pt", start=start, progress=False, **{**VERIFIER, "hidden": 16, "steps": 2}
        )
    assert not (tmp_path / "n.pt").exists()
