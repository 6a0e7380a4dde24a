"""The levels of a slab on a CPU; tests/cuda_on_host has those of a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from networks import small_unet
from t3ssfast.detection import segment
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.membrane_levels import MembraneLevels
from t3ssfast.detection.segment_slice import slice_weights, weighted_mean
from t3ssfast.errors import ModelError
from toy import same_candidates, toy_detect, toy_tomogram


def test_slices_are_averaged_with_their_neighbours():
    values = np.random.default_rng(0).random((4, 20, 31), np.float32)
    segmented = dict(enumerate(torch.from_numpy(values)))
    out = np.full((4, 20, 31), 77, np.uint8)
    levels = MembraneLevels(out, small_unet())
    levels.write(1, slice_weights(1, 4), segmented)
    assert (out[[0, 2, 3]] == 77).all()
    for z in (0, 2, 3):
        levels.write(z, slice_weights(z, 4), segmented)
    assert levels.finish() is out
    for z in range(4):
        mean = weighted_mean(slice_weights(z, 4), dict(enumerate(values)))
        np.testing.assert_array_equal(out[z], np.rint(np.float32(255) * mean))


def test_a_probability_that_is_nan_is_reported():
    segmenter = small_unet()
    levels = MembraneLevels(np.zeros((1, 5, 6), np.uint8), segmenter)
    slices = {n: torch.zeros(5, 6) for n in range(3)}
    slices[2][4, 5] = float("nan")
    with pytest.raises(ModelError, match="The segmenter test answers NaN"):
        levels.write(0, slice_weights(1, 3), slices)


def test_levels_in_other_memory_are_copied_to_their_place(models, monkeypatch):
    """Those of a CUDA device come to pinned memory."""

    class InOtherMemory(MembraneLevels):
        def __init__(self, out, segmenter):
            super().__init__(np.empty_like(out), segmenter)
            out[...] = 255

    tomogram = toy_tomogram((12, 90, 100))[0]
    config = DetectConfig(slab_slices=5, membrane_threshold=0.3, membrane_min_area_nm2=0)
    want = toy_detect(tomogram, models, config=config)
    assert want.membrane.any()
    assert not want.membrane.all()
    monkeypatch.setattr(segment, "MembraneLevels", InOtherMemory)
    found = toy_detect(tomogram, models, config=config)
    np.testing.assert_array_equal(found.membrane, want.membrane)
    same_candidates(found, want)
