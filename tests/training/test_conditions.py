"""Conditions keep the truth on the particles, whatever they do to the volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from t3ssfast.candidates import Candidates
from t3ssfast.simulation.parameters import Physics
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.bundled.conditions import CONDITIONS, SPECIMEN, Condition, Sample

BY_NAME = {condition.name: condition for condition in CONDITIONS}
CENTRES = np.array([[10.0, 14.0, 30.0], [16.0, 28.0, 12.0]])


def blobs() -> Sample:
    """Dark blobs where the particles are."""
    volume = np.zeros((24, 40, 44), np.float32)
    volume[tuple(CENTRES.astype(int).T)] = -400.0
    volume = ndimage.gaussian_filter(volume, 2.0)
    normals = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    particles = Candidates(CENTRES, np.ones(2), normals, 13.6, volume.shape)
    return Sample(Tomogram(volume, 13.6), particles, particles[:1])


def test_conditions_are_distinct_and_valid() -> None:
    assert len(BY_NAME) == len(CONDITIONS) >= 25
    for condition in CONDITIONS:
        Physics.from_dict(SPECIMEN | condition.physics)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_particles_stay_where_they_are_seen(condition: Condition) -> None:
    if condition.name in ("non-local means", "total variation"):
        pytest.importorskip("skimage")
    before = blobs()
    sample = condition.process(before)
    volume = np.asarray(sample.tomogram.data)
    assert volume.dtype == np.float32
    assert np.isfinite(volume).all()
    assert sample.truth.tomogram_shape == volume.shape
    assert sample.truth.voxel_size_angstrom == sample.tomogram.voxel_size_angstrom
    assert len(sample.distractors) == 1
    for centre in sample.truth.centre_zyx:
        low = np.maximum(np.rint(centre).astype(int) - 4, 0)
        block = volume[tuple(slice(a, a + 9) for a in low)]
        # Eight bits saturate the darkest voxels.
        dark = np.argwhere(block <= block.min() + 0.1 * np.ptp(block)) + low
        assert np.linalg.norm(dark.mean(axis=0) - centre) <= 0.5


def test_directions_follow_the_axes() -> None:
    assert BY_NAME["flipped hand"].process(blobs()).truth.normal_zyx[1] == pytest.approx([-0.6, 0.8, 0.0])
    assert BY_NAME["tilt axis along x"].process(blobs()).truth.normal_zyx[1] == pytest.approx([0.6, 0.0, 0.8])
    wrong = BY_NAME["voxel size 8% too large"].process(blobs())
    assert wrong.tomogram.voxel_size_angstrom == pytest.approx(1.08 * 13.6)


def test_particles_in_zero_filled_regions_are_left_out() -> None:
    before = blobs()
    centres = np.array([[10.0, 14.0, 30.0], [12.0, 1.0, 20.0], [1.0, 30.0, 20.0]])
    particles = Candidates(centres, np.ones(3), np.tile([1.0, 0.0, 0.0], (3, 1)), 13.6, before.tomogram.shape)
    sample = BY_NAME["zero-filled regions"].process(Sample(before.tomogram, particles, particles[1:]))
    assert sample.truth.centre_zyx.tolist() == [[10.0, 14.0, 30.0]]
    assert len(sample.distractors) == 0
    assert np.asarray(sample.tomogram.data)[12, 1, 20] == 0
