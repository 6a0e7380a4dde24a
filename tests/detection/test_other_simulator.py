"""Detection in tomograms of two simulators that no model was trained on, and these simulators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import t3ssfast as t3
from other_simulator import other_tomogram
from third_simulator import third_tomogram

# Seeds and options: contrast, defocus, noise, phase flipping and voxel size differ.
TOMOGRAMS: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}),
    (2, {"voxel_nm": 1.36, "defocus_um": 3.0, "inverted": True}),
    (3, {"voxel_nm": 1.1, "signal_to_noise": 0.3, "phase_flip": True}),
)


def test_other_simulator_places_t3ss_between_its_membranes() -> None:
    options: dict[str, Any] = {
        "cells": 1,
        "gold": 0,
        "vesicles": 0,
        "signal_to_noise": 50.0,
        "tilt_step": 12.0,
    }
    made, again, bright = (
        other_tomogram(4, shape=(72, 170, 170), **options, inverted=inverted)
        for inverted in (False, False, True)
    )
    np.testing.assert_array_equal(made.tomogram.data, again.tomogram.data)
    np.testing.assert_array_equal(made.tomogram.data, -bright.tomogram.data)
    assert len(made.truth) >= 2
    np.testing.assert_allclose(np.linalg.norm(made.truth.normal_zyx, axis=1), 1, atol=1e-5)
    distance_nm = ndimage.distance_transform_edt(~made.membrane) * 1.2
    voxels = np.round(made.truth.centre_zyx).astype(int)
    # Half the gap of 24 to 30 nm, without the half thickness of the membrane.
    assert (np.abs(distance_nm[tuple(voxels.T)] - 11.5) < 4).all()
    # Protein is dark.
    assert made.tomogram.data[made.membrane].mean() < made.tomogram.data[distance_nm > 8].mean() - 0.5


@pytest.mark.slow
def test_bundled_models_find_t3ss_of_the_other_simulator() -> None:
    found, truth = [], []
    for seed, options in TOMOGRAMS:
        made = other_tomogram(seed, **options)
        found.append(t3.detect(made.tomogram, device="cpu", progress=False).candidates)
        truth.append(made.truth)
    # The bundled models find 28 of 30, with 2 false positives, and 1 false positive without T3SS.
    bare = other_tomogram(5, t3ss_per_cell=0)
    assert len(t3.detect(bare.tomogram, device="cpu", progress=False).candidates) <= 2
    result = t3.evaluate(found, truth, tolerance_angstrom=120.0)
    assert result.n_truth == 30
    assert result.precision > 0.8
    assert result.recall > 0.8
    assert result.median_normal_error_degrees < 5
    assert result.polarity_right == 1


@pytest.mark.slow
def test_bundled_models_find_t3ss_of_the_third_simulator() -> None:
    made = [third_tomogram(1, noise=2.5), third_tomogram(2, voxel_nm=1.2, defocus_um=3.5)]
    for one in made:
        assert len(one.truth) == 8
        assert one.tomogram.data.std() > 0.5
    found = [t3.detect(one.tomogram, device="cpu", progress=False).candidates for one in made]
    result = t3.evaluate(found, [one.truth for one in made], tolerance_angstrom=120.0)
    # All of the sixteen are found.
    assert result.true_positives >= 14
    assert result.false_positives <= 2
    assert result.polarity_right == 1
    assert result.median_normal_error_degrees < 6
