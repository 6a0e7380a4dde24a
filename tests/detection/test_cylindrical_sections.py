"""Frames around axes, boxes and cylindrical sections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.detection.cylindrical_sections import (
    HeldSlices,
    axis_correction,
    axis_frames,
    box_size,
    correct_axis,
    cut_boxes,
    cylindrical_sections,
    rotate_frames,
)
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.models import AZIMUTHS
from t3ssfast.runtime.upload import Uploader
from t3ssfast.tomogram import Tomogram


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(2, 30), st.integers(2, 30)),
    side=st.integers(2, 24),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_boxes_equal_those_of_the_padded_volume(
    shape: tuple[int, int, int], side: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(size=shape).astype(np.float32)
    grid = PreparedTomogram.prepare(Tomogram(data, 13.6))
    middle = rng.integers(0, shape, (count, 3))
    padded = np.pad(grid.slab(0, shape[0]), side)
    yielded = np.zeros(count, int)
    # An uploader prepares slices as on a device.
    for upload in (None, Uploader(torch.device("cpu"))):
        for chosen, boxes in cut_boxes(HeldSlices(grid, upload=upload), middle, side):
            for k, box in zip(chosen, boxes, strict=True):
                start = middle[k] - side // 2 + side
                np.testing.assert_array_equal(box, padded[tuple(slice(s, s + side) for s in start)])
                yielded[k] += 1
    assert (yielded == 2).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
@pytest.mark.parametrize("height", [16, 32, 48])
def test_sections_sample_the_volume_at_the_documented_positions(height: int, seed: int) -> None:
    """Linear interpolation is exact for a linear function, so each value reveals its position."""
    rng = np.random.default_rng(seed)
    side = box_size(height)
    slope, centre = rng.normal(size=3), rng.uniform(-0.5, 0.5, 3)
    z, y, x = np.indices((side, side, side)) - side // 2
    box = torch.from_numpy((slope[0] * z + slope[1] * y + slope[2] * x).astype(np.float32))
    frame = axis_frames(rng.normal(size=(1, 3)))
    sections = cylindrical_sections(box[None], centre[None], frame, height)[0].numpy()
    assert sections.shape == (AZIMUTHS, height, height // 2)
    angle = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    axis, across, quarter = frame[0]
    for k, row, column in zip(*(rng.integers(n, size=20) for n in sections.shape), strict=True):
        away = np.cos(angle[k]) * across + np.sin(angle[k]) * quarter
        position = centre + (row - height * 5 // 12) * axis + (column + 0.5) * away
        if np.abs(position).max() < side // 2 - 1:
            np.testing.assert_allclose(sections[k, row, column], slope @ position, atol=1e-3)


@given(seed=st.integers(0, 999))
def test_frames_are_orthonormal_and_right_handed(seed: int) -> None:
    axis = np.random.default_rng(seed).normal(size=(7, 3))
    frames = axis_frames(axis)
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.tile(np.eye(3), (7, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(frames), 1)
    np.testing.assert_allclose((frames[:, 0] * axis).sum(axis=1), np.linalg.norm(axis, axis=1), rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_rotated_frames_keep_their_axes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, angle = axis_frames(rng.normal(size=(4, 3))), rng.uniform(-7, 7, 4)
    rotated = rotate_frames(frames, angle)
    np.testing.assert_array_equal(rotated[:, 0], frames[:, 0])
    np.testing.assert_allclose((rotated[:, 1] * frames[:, 1]).sum(axis=1), np.cos(angle), atol=1e-12)
    np.testing.assert_allclose((rotated[:, 1] * frames[:, 2]).sum(axis=1), np.sin(angle), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotated), 1, atol=1e-12)
    np.testing.assert_allclose(rotate_frames(rotated, -angle), frames, atol=1e-12)


@given(seed=st.integers(0, 999))
def test_axis_correction_is_the_inverse_of_correct_axis(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, tilt = axis_frames(rng.normal(size=(9, 3))), rng.uniform(-2, 2, (9, 2))
    axes = correct_axis(frames, tilt)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1)
    np.testing.assert_allclose(
        (axes * frames[:, 0]).sum(axis=1), np.cos(np.linalg.norm(tilt, axis=1)), atol=1e-12
    )
    np.testing.assert_allclose(axis_correction(axes, frames), tilt, atol=1e-6)
    np.testing.assert_allclose(axis_correction(3 * axes, 0.5 * frames), tilt, atol=1e-6)
    np.testing.assert_array_equal(correct_axis(frames, np.zeros((9, 2))), frames[:, 0])
    np.testing.assert_allclose(axis_correction(frames[:, 0], frames), 0, atol=1e-12)


def test_axis_correction_accounts_for_the_lengths_of_the_rows() -> None:
    frames = axis_frames(np.array([[1.0, 0.0, 0.0]]))
    axis = frames[:, 0] + frames[:, 1]
    tilt = axis_correction(axis, frames * np.array([0.5, 1.0, 1.0])[:, None])
    np.testing.assert_allclose(tilt, [[np.arctan(0.5), 0]])
