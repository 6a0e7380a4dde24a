"""The contrast of a tomogram: whether protein is dark or light."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["DARK", "LIGHT", "contrast_from_membrane", "contrast_from_segmenter", "trained_sign"]

DARK, LIGHT = 1, -1

# Slices, and side of their central crop in pixels, on which the segmenter is run with both signs.
SEGMENTED_SLICES = 5
SEGMENTED_CROP = 512
# Only membrane of at least this probability counts.
CONFIDENT_MEMBRANE = 0.7
# The sign is clear where two slices have this many times as much membrane with it as with the other, or as
# this mean of confident probabilities.
CLEAR_RATIO, CLEAR_EVIDENCE = 4.0, 1e-3
# Slices on which grey values inside and outside of a given membrane are compared.
COMPARED_SLICES = 12


def trained_sign(model: LoadedModel) -> int:
    """Return the contrast that a model was trained on."""
    return DARK if model.metadata.contrast == "dark" else LIGHT


@retry_on_oom("finding the contrast")
def contrast_from_segmenter(
    grid: PreparedTomogram, segmenter: LoadedModel, config: DetectConfig
) -> dict[str, Any]:
    """Take the contrast of the configuration, or the sign under which the segmenter finds more membrane.

    The centre of a few slices, spread over the middle half of the volume, is segmented with both signs, until
    the answer is clear. Where neither shows any membrane, protein is taken to be dark. The result has "sign"
    (`DARK` or `LIGHT`), "how" it was found, and the evidence: the mean of probabilities above 0.7, as given
    and inverted.
    """
    if config.contrast != "auto":
        return _given(config)
    depth, height, width = grid.shape
    count = min(SEGMENTED_SLICES, depth)
    chosen = (depth * (0.25 + 0.5 * (np.arange(count) + 0.5) / count)).astype(int)
    top, left = max(0, (height - SEGMENTED_CROP) // 2), max(0, (width - SEGMENTED_CROP) // 2)
    as_given = grid.with_contrast_sign(1)
    found = np.zeros((0, 2))
    for z in sorted(chosen.tolist(), key=lambda z: abs(z - depth / 2)):
        slices = as_given.slab_around(z, segmenter.metadata.slices)
        crop = slices[:, top : top + SEGMENTED_CROP, left : left + SEGMENTED_CROP]
        here = []
        for sign in (1, -1):
            probability = segment_slice(np.float32(sign) * crop, segmenter, engine=config.segmenter_engine)
            confident = np.where(probability > CONFIDENT_MEMBRANE, probability, 0.0)
            here.append(float(np.mean(confident)))
        found = np.vstack([found, here])
        clear = found.max(axis=1) > CLEAR_RATIO * np.maximum(found.min(axis=1), CLEAR_EVIDENCE)
        if len(found) > 1 and clear.all() and np.ptp(found.argmax(axis=1)) == 0:
            break
    evidence = found.mean(axis=0)
    # The sign that a model trained on light protein prefers is the inverse of the tomogram's.
    preferred = 1 if evidence[0] >= evidence[1] else -1
    return {
        "sign": preferred * trained_sign(segmenter),
        "how": "the sign under which the segmenter sees more membrane",
        "membrane_as_given": float(evidence[0]),
        "membrane_inverted": float(evidence[1]),
    }


@retry_on_oom("finding the contrast")
def contrast_from_membrane(
    grid: PreparedTomogram, membrane: npt.NDArray[np.uint8], config: DetectConfig
) -> dict[str, Any]:
    """Take the contrast of the configuration, or compare grey values inside and outside of a membrane mask.

    The grid must not be inverted. The result has "sign" (`DARK` or `LIGHT`), "how" it was found, and the mean
    difference of inside and outside in standard deviations.
    """
    if config.contrast != "auto":
        return _given(config)
    slices = np.flatnonzero(membrane.any(axis=(1, 2)))
    inside, outside = [], []
    for z in slices[:: max(1, len(slices) // COMPARED_SLICES)].tolist():
        values, here = grid.slab(z, z + 1)[0], membrane[z] != 0
        if not here.all():
            inside.append(float(values[here].mean(dtype=np.float64)))
            outside.append(float(values[~here].mean(dtype=np.float64)))
    difference = float(np.mean(inside) - np.mean(outside)) if inside else 0.0
    return {
        "sign": LIGHT if difference > 0 else DARK,
        "how": "the grey values in the given membrane against those outside",
        "membrane_minus_rest_sigmas": difference,
    }


def _given(config: DetectConfig) -> dict[str, Any]:
    return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
