"""The contrast of a tomogram."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from networks import loaded_segmenter
from t3ssfast.detection import contrast
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.contrast import DARK, contrast_from_membrane, contrast_from_segmenter
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.tomogram import Tomogram


class Darkness(nn.Module):
    """Finds membrane where it is dark."""

    def forward(self, image: Tensor) -> Tensor:
        return -4.0 * image - 8.0


@pytest.mark.parametrize("sign", [1, -1])
def test_segmenter_tells_the_contrast(sign):
    rng = np.random.default_rng(3)
    data = rng.normal(size=(12, 64, 64)).astype(np.float32)
    data[:, 30:34] -= 6
    plain = Normalisation(highpass_nm=0)
    prepared = PreparedTomogram.prepare(Tomogram(sign * data, 13.6), normalisation=plain)
    found = contrast_from_segmenter(prepared, loaded_segmenter(Darkness()), DetectConfig())
    as_given, inverted = found["membrane_as_given"], found["membrane_inverted"]
    assert found["sign"] == sign
    assert (as_given > inverted) == (sign == 1)
    assert max(as_given, inverted) > 0.03


def test_further_slices_are_segmented_until_the_sign_is_clear(monkeypatch):
    calls = []
    plain = contrast.segment_slice

    def counted(*arguments, **options):
        calls.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(contrast, "segment_slice", counted)
    data = np.random.default_rng(3).normal(size=(20, 64, 64)).astype(np.float32)
    membrane = data.copy()
    membrane[:, 30:34] -= 6
    # As much membrane with either sign.
    both = membrane.copy()
    both[:, 40:44] += 6
    for volume, slices in (
        (membrane, 2),
        (both, contrast.SEGMENTED_SLICES),
        (data, contrast.SEGMENTED_SLICES),
    ):
        calls.clear()
        prepared = PreparedTomogram.prepare(
            Tomogram(volume, 13.6), normalisation=Normalisation(highpass_nm=0)
        )
        contrast_from_segmenter(prepared, loaded_segmenter(Darkness()), DetectConfig())
        assert len(calls) == 2 * slices


def test_protein_is_dark_where_there_is_no_membrane():
    data = np.random.default_rng(4).normal(size=(3, 20, 20)).astype(np.float32) * 0.1
    data[0, 0, 0] = 1
    prepared = PreparedTomogram.prepare(Tomogram(data, 13.6), normalisation=Normalisation(clip=1.0))
    found = contrast_from_segmenter(prepared, loaded_segmenter(Darkness()), DetectConfig())
    assert (found["sign"], found["membrane_as_given"], found["membrane_inverted"]) == (DARK, 0.0, 0.0)


class Blindness(nn.Module):
    """Finds no membrane anywhere."""

    def forward(self, image: Tensor) -> Tensor:
        return 0 * image - 20.0


@pytest.mark.parametrize("sign", [1, -1])
def test_only_what_the_segmenter_sees_in_a_given_membrane_counts(sign):
    rng = np.random.default_rng(5)
    data = rng.normal(size=(12, 96, 96)).astype(np.float32)
    mask = np.zeros(data.shape, np.uint8)
    mask[3:, 48:50] = 1
    data[mask != 0] -= 6
    # Three times as much that would be membrane if light were dark.
    data[:, 60:66] += 6
    plain = Normalisation(highpass_nm=0)
    prepared = PreparedTomogram.prepare(Tomogram(sign * data, 13.6), normalisation=plain)
    network = loaded_segmenter(Darkness())
    assert contrast_from_segmenter(prepared, network, DetectConfig())["sign"] == -sign
    found = contrast_from_membrane(prepared, mask, network, DetectConfig())
    assert found["sign"] == sign
    assert "more of the given membrane" in found["how"]
    given = contrast_from_membrane(prepared, mask, network, DetectConfig(contrast="light"))
    assert given == {"sign": -1, "how": "given"}


@pytest.mark.parametrize("sign", [1, -1])
def test_grey_values_beside_a_given_membrane_tell_where_the_segmenter_is_blind(sign):
    # Like a cell full of protein: all but the surroundings of the membrane is darker than it.
    data = np.random.default_rng(5).normal(size=(12, 96, 96)).astype(np.float32) - 12
    data[:, 40:60] += 12
    mask = np.zeros(data.shape, np.uint8)
    mask[3:, 48:52] = 1
    data[mask != 0] -= 6
    assert data[mask != 0].mean() > data[mask == 0].mean()
    plain = Normalisation(highpass_nm=0)
    prepared = PreparedTomogram.prepare(Tomogram(sign * data, 13.6), normalisation=plain)
    found = contrast_from_membrane(prepared, mask, loaded_segmenter(Blindness()), DetectConfig())
    assert found["sign"] == sign
    assert "beside it" in found["how"]


def test_without_any_given_membrane_protein_is_dark():
    prepared = PreparedTomogram.prepare(Tomogram(np.random.default_rng(6).normal(size=(4, 20, 20)), 13.6))
    empty = np.zeros(prepared.shape, np.uint8)
    found = contrast_from_membrane(prepared, empty, loaded_segmenter(Darkness()), DetectConfig())
    assert (found["sign"], found["membrane_minus_rest_sigmas"]) == (DARK, 0.0)
