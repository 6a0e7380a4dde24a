"""Training examples of the verifier: labels, boxes, and targets that match the sections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_toys import VERIFIER, columns, rod_example

from t3ssfast.training.boxes import BoxPool
from t3ssfast.training.data import prepare_tomograms
from t3ssfast.training.options import VerifierOptions, make_options


def collect(examples, options):
    """Return the boxes of all tomograms."""
    tomograms = prepare_tomograms(examples[0], None, examples[1], options)
    labelled = zip(tomograms, *examples[1:], strict=True)
    return BoxPool.concatenate(
        [BoxPool.from_candidates(k, *each, options) for k, each in enumerate(labelled)]
    )


def draw(pool, options):
    """Return a batch."""
    return pool.draw(np.random.default_rng(3), options.batch, options)


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.3, 1.3)])
def test_targets_point_to_the_centre(balls, stretch):
    changed = {"height_px": 32, "batch": 64, "positive_share": 0.5, "jitter_nm": 1.5, "stretch": stretch}
    options = make_options(VerifierOptions, {**VERIFIER, **changed})
    pool = collect(balls, options)
    assert len(pool.true) == 4 * 5  # two T3SS per tomogram, each as picked and as found
    assert len(pool.false) == 2 * 5
    sections, targets = draw(pool, options)
    assert sections.shape == (64, 12, 32, 16)
    assert targets[:32, 0].min() == 1
    assert targets[32:].abs().max() == 0
    assert targets[:32, 1:].abs().max() > 1.5
    # The centre of mass of each dark ball is at its target.
    radius = torch.arange(16.0) + 0.5
    height = torch.arange(32.0) - 13
    # The mirrored ball is farther away; a ring counts by its length.
    near = height[:, None] ** 2 + radius**2 < 81
    dark = (-sections[:32] - 2).clamp_min(0) * near * radius
    total = dark.sum(dim=(1, 2, 3))
    azimuth = 2 * np.pi * torch.arange(12) / 12
    measured = [
        (dark.sum(dim=(1, 3)) * height).sum(dim=1),
        ((dark * radius).sum(dim=(2, 3)) * torch.cos(azimuth)).sum(dim=1),
        ((dark * radius).sum(dim=(2, 3)) * torch.sin(azimuth)).sum(dim=1),
    ]
    for axis, sums in enumerate(measured):
        assert (sums / total - targets[:32, 1 + axis]).abs().median() < 0.5
    # Balls are longer along the axis by the square root of the factor.
    along = (dark.sum(dim=(1, 3)) * (height - targets[:32, 1:2]) ** 2).sum(dim=1) / total
    assert (5 * along.median()).sqrt() == pytest.approx(4 * stretch[0] ** 0.5, abs=0.25)


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.4, 1.4)])
def test_targets_correct_the_axis(stretch):
    changed = {"height_px": 32, "batch": 64, "positive_share": 0.75, "jitter_nm": 0.0, "stretch": stretch}
    options = make_options(VerifierOptions, {**VERIFIER, **changed, "far_degrees": 30})
    sections, targets = draw(collect(columns(rod_example(k) for k in range(5)), options), options)
    assert targets[48:].abs().max() == 0
    sections, correction = sections[:48], targets[:48, 4:]
    # The slope of the upper half of each rod is the correction.
    height, radius = torch.arange(32.0) - 13, torch.arange(16.0) + 0.5
    upper = (height > 2)[:, None] & (height[:, None] ** 2 + radius**2 < 100)
    dark = (-sections - 3).clamp_min(0) * upper * radius
    azimuth = 2 * np.pi * torch.arange(12) / 12
    outwards = (dark * radius).sum(dim=(2, 3))
    sideways = torch.stack(
        [(outwards * part).sum(dim=1) for part in (torch.cos(azimuth), torch.sin(azimuth))], dim=1
    )
    slope = sideways / (dark * height[:, None]).sum(dim=(1, 2, 3))[:, None]
    norm = slope.norm(dim=1, keepdim=True)
    measured = slope * torch.atan(norm) / norm
    assert correction.norm(dim=1).max() > np.radians(25)
    # In a box with a part cut off, the rod can be missing.
    assert (measured - correction).norm(dim=1).nanmedian() < np.radians(2)


def test_random_gain_is_the_same_at_every_azimuth(balls):
    drawn = []
    for profile in (0.0, 0.3):
        options = make_options(VerifierOptions, {**VERIFIER, "profile": profile})
        drawn.append(draw(collect(balls, options), options))
    assert torch.equal(drawn[0][1], drawn[1][1])
    visible = drawn[0][0].abs() > 1e-3
    gain = torch.where(visible, drawn[1][0] / drawn[0][0], torch.nan)
    median = gain.nanmedian(dim=1, keepdim=True).values
    assert ((gain - median).abs()[~gain.isnan()] < 1e-3 * median.expand_as(gain)[~gain.isnan()]).all()
    assert 0.15 < float(median.log().nan_to_num().std()) < 0.4


def test_a_particle_is_either_trained_on_or_held_out(balls):
    options = make_options(VerifierOptions, VERIFIER)
    pool = collect(balls, options)
    training, held_out = pool.split(options)
    assert len(training.true) + len(held_out.true) == len(pool.true)
    assert len(held_out.true) % 2 == 0  # each as picked and as found
    assert not {tuple(row) for row in training.true.particle} & {tuple(row) for row in held_out.true.particle}


def test_picks_without_axes_take_those_of_candidates_close_by(balls):
    options = make_options(VerifierOptions, VERIFIER)
    (tomogram,) = prepare_tomograms(balls[0][:1], None, balls[1][:1], options)
    picks, candidates = balls[1][0], balls[2][0]
    without_axes = replace(picks, normal_zyx=np.tile([1.0, 0.0, 0.0], (len(picks), 1)))

    def label(known, found):
        return BoxPool.from_candidates(0, tomogram, known, found, options)

    given, taken = label(picks, candidates), label(without_axes, candidates)
    np.testing.assert_allclose(taken.true.axis[:2], candidates.normal_zyx[:2])
    np.testing.assert_array_equal(taken.true.centre[:2], given.true.centre[:2])
    # Without a candidate close by, only picks with axes can be used.
    assert len(label(without_axes, candidates[:2]).true) == 0
    assert len(label(picks, candidates[:0]).true) == 2
