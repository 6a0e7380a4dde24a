"""The contrast of a tomogram: whether protein is dark or light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.memory import retry_on_oom

__all__ = [
    "DARK",
    "LIGHT",
    "contrast_from_membrane",
    "contrast_from_segmenter",
    "given_contrast",
    "trained_sign",
]

Mask = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
# A slice, the rows and columns of a crop of it, and the mask in the crop.
Crop = tuple[int, tuple[slice, slice], npt.NDArray[np.bool_] | None]

DARK, LIGHT = 1, -1

# Slices, and side of their central crop in pixels, on which the segmenter is run with both signs.
SEGMENTED_SLICES = 5
SEGMENTED_CROP = 512
# Only membrane of at least this probability counts.
CONFIDENT_MEMBRANE = 0.7
# The sign is clear where two slices have this many times as much membrane with it as with the other, or as
# this mean of confident probabilities.
CLEAR_RATIO, CLEAR_EVIDENCE = 4.0, 1e-3
# Where among the slices with a given membrane it is segmented: the middle first.
MEMBRANE_SHARES = (0.5, 0.3, 0.7, 0.1, 0.9)
# Slices on which grey values in a given membrane and beside it are compared, and what is beside it.
COMPARED_SLICES = 12
BESIDE_NM = 10.0


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
        return given_contrast(config)
    depth, height, width = grid.shape
    count = min(SEGMENTED_SLICES, depth)
    chosen = (depth * (0.25 + 0.5 * (np.arange(count) + 0.5) / count)).astype(int)
    crop = _square_around(height / 2, height), _square_around(width / 2, width)
    found = _confident_membrane(
        grid,
        segmenter,
        config,
        [(z, crop, None) for z in sorted(chosen.tolist(), key=lambda z: abs(z - depth / 2))],
    )
    return _preferred(found, segmenter, "the sign under which the segmenter sees more membrane")


@retry_on_oom("finding the contrast")
def contrast_from_membrane(
    grid: PreparedTomogram, membrane: Mask, segmenter: LoadedModel, config: DetectConfig
) -> dict[str, Any]:
    """Take the contrast of the configuration, or the sign under which the segmenter sees a given membrane.

    A few slices, around the middle of the membrane in each, are segmented with both signs, until the answer
    is clear; the evidence is the mean in the membrane of probabilities above 0.7. Where the segmenter sees
    nothing of it, grey values in the mask are compared with those just outside. By themselves, grey values
    are wrong in some tomograms: the fringes of a large defocus are as light as protein is dark.

    `membrane` is a mask on `grid`, the segmenter's, which must not be inverted. The result has "sign", "how"
    it was found, and the evidence.
    """
    if config.contrast != "auto":
        return given_contrast(config)
    _, height, width = grid.shape
    slices = np.flatnonzero(membrane.any(axis=(1, 2)))
    chosen = []
    for share in MEMBRANE_SHARES[: len(slices)]:
        z = int(slices[int(share * len(slices))])
        rows, columns = (np.flatnonzero(membrane[z].any(axis=axis)) for axis in (1, 0))
        crop = _square_around(float(rows.mean()), height), _square_around(float(columns.mean()), width)
        chosen.append((z, crop, membrane[z][crop] != 0))
    found = _confident_membrane(grid, segmenter, config, chosen)
    if len(found) and found.mean(axis=0).max() >= CLEAR_EVIDENCE:
        how = "the sign under which the segmenter sees more of the given membrane"
        return _preferred(found, segmenter, how)
    difference = _grey_difference(grid, membrane, slices)
    return {
        "sign": LIGHT if difference > 0 else DARK,
        "how": "the grey values in the given membrane, of which the segmenter sees nothing, and beside it",
        "membrane_minus_rest_sigmas": difference,
    }


def _square_around(middle: float, length: int) -> slice:
    """At most `SEGMENTED_CROP` voxels of an axis around a position, inside its length."""
    start = round(middle) - SEGMENTED_CROP // 2
    start = max(0, min(start, length - SEGMENTED_CROP))
    return slice(start, start + SEGMENTED_CROP)


def _confident_membrane(
    grid: PreparedTomogram, segmenter: LoadedModel, config: DetectConfig, chosen: Sequence[Crop]
) -> FloatArray:
    """Return (n, 2) means of the probabilities above 0.7 in crops of slices, as given and inverted.

    The means are those inside the mask of a crop, if it has one. The crops after a clear answer are left out.
    """
    as_given = grid.with_contrast_sign(1)
    found = np.zeros((0, 2))
    for z, (rows, columns), inside in chosen:
        crop = as_given.slab_around(z, segmenter.metadata.slices)[:, rows, columns]
        here = []
        for sign in (1, -1):
            probability = segment_slice(np.float32(sign) * crop, segmenter, engine=config.segmenter_engine)
            confident = np.where(probability > CONFIDENT_MEMBRANE, probability, 0.0)
            here.append(float(np.mean(confident if inside is None else confident[inside])))
        found = np.vstack([found, here])
        clear = found.max(axis=1) > CLEAR_RATIO * np.maximum(found.min(axis=1), CLEAR_EVIDENCE)
        if len(found) > 1 and clear.all() and np.ptp(found.argmax(axis=1)) == 0:
            break
    return found


def _preferred(found: FloatArray, segmenter: LoadedModel, how: str) -> dict[str, Any]:
    """Describe the sign that a segmenter prefers, from the means of `_confident_membrane`."""
    evidence = found.mean(axis=0)
    # The sign that a model trained on light protein prefers is the inverse of the tomogram's.
    preferred = 1 if evidence[0] >= evidence[1] else -1
    return {
        "sign": preferred * trained_sign(segmenter),
        "how": how,
        "membrane_as_given": float(evidence[0]),
        "membrane_inverted": float(evidence[1]),
    }


def _grey_difference(grid: PreparedTomogram, membrane: Mask, slices: npt.NDArray[np.int64]) -> float:
    """Return the mean grey value in a membrane minus that beside it, in standard deviations of the grid."""
    as_given = grid.with_contrast_sign(1)
    beside_px = BESIDE_NM * 10 / grid.voxel_size_angstrom
    differences = []
    for z in slices[:: max(1, len(slices) // COMPARED_SLICES)].tolist():
        values, here = as_given.slab(z, z + 1)[0], membrane[z] != 0
        beside = ~here & (ndimage.distance_transform_edt(~here) <= beside_px)
        if beside.any():
            inside, outside = (float(values[part].mean(dtype=np.float64)) for part in (here, beside))
            differences.append(inside - outside)
    return float(np.mean(differences)) if differences else 0.0


def given_contrast(config: DetectConfig) -> dict[str, Any]:
    """Describe the contrast of a configuration that gives it."""
    return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
