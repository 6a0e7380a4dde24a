"""Statistics by which tomograms are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.describe import describe_domain, notes_on_scores
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.tomogram_statistics import tomogram_statistics
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.evaluation.calibration_domain import CalibrationDomain, StatisticsGroup
from t3ssfast.tomogram import Tomogram
from toy import Models

NONE = np.zeros(0)


def described(volume: np.ndarray, **other: Any) -> dict[str, float]:
    grid = PreparedTomogram.prepare(Tomogram(volume.astype(np.float32), 13.6))
    return tomogram_statistics(grid, other.get("histogram"), other.get("log_odds", NONE))


def test_white_noise_has_a_flat_spectrum_and_normal_kurtosis() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 90, 110))
    found = described(noise)
    assert [found[f"image_power_{k}"] for k in range(8)] == pytest.approx([np.log10(1 / 8)] * 8, abs=0.06)
    assert found["image_kurtosis"] == pytest.approx(np.log(3), abs=0.05)
    assert found["image_beam_correlation_1"] == pytest.approx(0, abs=0.03)


def test_scale_does_not_matter_and_blur_does() -> None:
    noise = np.random.default_rng(1).normal(size=(20, 90, 110))
    first, scaled = described(noise), described(1000 * noise + 5)
    assert scaled == pytest.approx(first, abs=1e-3)
    blurred = described(ndimage.gaussian_filter(noise, 1.0))
    assert blurred["image_power_0"] > first["image_power_0"] + 0.3
    assert blurred["image_power_7"] < first["image_power_7"] - 1
    # exp(-d^2 / 4 sigma^2) for a Gaussian of sigma 1.
    assert blurred["image_beam_correlation_1"] == pytest.approx(np.exp(-0.25), abs=0.05)


def test_membrane_and_scores() -> None:
    noise = np.random.default_rng(2).normal(size=(4, 60, 60))
    histogram = np.zeros(256, np.int64)
    histogram[[0, 100, 255]] = 900, 25, 75
    found = described(noise, histogram=histogram, log_odds=np.array([-4.0, -0.4, 0.5, 8.0]))
    # 25 of 100 voxels in doubt, and 20 added, half of them in doubt.
    assert found["confidence_membrane_doubt"] == pytest.approx(35 / 120, abs=0.01)
    assert found["confidence_upper_log_odds"] == pytest.approx((0.5 + 8 + 2 * 6) / 4)
    assert found["confidence_between"] == pytest.approx(2 / 5)
    none = described(noise)
    assert none["confidence_upper_log_odds"] == pytest.approx(6.0)
    assert none["confidence_between"] == 0
    assert "confidence_membrane_doubt" not in none


def test_a_single_slice_has_finite_statistics() -> None:
    noise = np.random.default_rng(3).normal(size=(1, 60, 60))
    assert np.isfinite(list(described(noise).values())).all()


def test_note_on_a_tomogram_unlike_those_of_the_calibration() -> None:
    group = StatisticsGroup(("image_a", "image_b"), (0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), 2.0)
    domain = CalibrationDomain((group,), 20)
    curve = Calibration("platt", (0.0, 1.0), (0.0, 1.0), (0.5,), (1.0,), (1.0,), domain=domain)
    assert read_calibration(curve.to_dict()) == curve
    near = describe_domain({"image_a": 1.0, "image_b": 0.0}, curve)
    assert notes_on_scores(near, None) == []
    far = describe_domain({"image_a": 5.0, "image_b": 5.0}, curve)
    assert far["calibration_distance"]["distance"] == pytest.approx(2.5)
    (note,) = notes_on_scores(far, None)
    assert "unlike those that the scores were calibrated on: its noise and power spectrum differ" in note
    assert "less sure" not in note
    unknown = describe_domain({"image_a": 5.0}, curve)
    assert unknown["calibration_distance"]["distance"] is None
    assert notes_on_scores(unknown, None) == []


def test_a_detection_keeps_its_statistics(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    found = t3.detect(world[0], progress=False, device="cpu", **models).provenance["calibration_distance"]
    assert found["distance"] is found["image"] is found["confidence"] is None
    assert {"image_power_0", "confidence_membrane_doubt", "confidence_between"} <= set(found["statistics"])
