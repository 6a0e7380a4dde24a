"""Where the membrane is: the U-Net slice by slice, and what follows from its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.models import LoadedModel
from t3ssfast.normalise import PreparedTomogram

__all__ = ["ContrastSign", "find_contrast_sign", "prune_membrane", "search_region", "segment"]

# Sides are padded to multiples of this: the poolings of a U-Net of depth 4.
SIDE_MULTIPLE = 16
# A slice is cut into tiles only where a side exceeds this; at base 16 a tile takes about 0.5 GB.
MAX_TILE = 1024
# What a pixel of a depth-4 U-Net can see on each side is 92 px (two 3x3 convolutions per level, down and up);
# as a multiple of 16 it keeps the poolings of a tile in step with those of the whole slice.
TILE_HALO = 96
# Slices and side of the crop that decide the contrast.
SIGN_SLICES = 5
SIGN_CROP = 512
# A voxel counts as seen membrane from here on.
SIGN_CONFIDENT = 0.7
# The faces of voxels along a surface add up to 1.5 times its area, averaged over directions (Cauchy-Crofton).
FACES_PER_AREA = 1.5


def _tiles(length: int) -> list[tuple[int, int, int, int]]:
    """Cores and their surroundings along one side: (core start, core end, start, end)."""
    if length <= MAX_TILE:
        return [(0, length, 0, length)]
    core = MAX_TILE - 2 * TILE_HALO
    return [
        (a, min(a + core, length), max(0, a - TILE_HALO), min(length, a + core + TILE_HALO))
        for a in range(0, length, core)
    ]


def segment(
    slab: npt.NDArray[np.float32],
    model: LoadedModel,
    *,
    device: str | torch.device | None = None,
) -> npt.NDArray[np.float32]:
    """Membrane probability of prepared slices.

    Every slice is asked by itself, padded by reflection to a multiple of 16, and in tiles with a halo where a
    side is above 1024 px. A slice's answer does not depend on the slab it came in.

    Parameters
    ----------
    slab
        (z, y, x) float32 on the model's grid, as `PreparedTomogram.slab` gives it.
    model
        A segmenter.
    device
        Where to run; None: where the model is.

    Returns
    -------
    (z, y, x) float32 in [0, 1].

    Raises
    ------
    InputError
        The slab is not three-dimensional or has an empty side.
    ModelError
        The model answers NaN.
    """
    if slab.ndim != 3 or min(slab.shape[1:]) == 0:
        raise InputError(
            f"A slab of shape {slab.shape} cannot be segmented; give (z, y, x) with y, x of at least 1."
        )
    if device is not None:
        model = model.to(device)
    height, width = slab.shape[1:]
    pad = ((0, -height % SIDE_MULTIPLE), (0, -width % SIDE_MULTIPLE))
    out = np.empty(slab.shape, np.float32)
    rows, columns = (_tiles(n + after) for n, (_, after) in zip((height, width), pad, strict=True))
    module = model.frozen
    with torch.inference_mode():
        for k in range(len(slab)):
            padded = np.pad(slab[k], pad, mode="reflect")
            image = torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32))[None, None]
            for r0, r1, top, bottom in rows:
                for c0, c1, left, right in columns:
                    tile = image[:, :, top:bottom, left:right].to(model.device)
                    answer = model.probability(module(tile.contiguous(memory_format=torch.channels_last)))
                    core = answer[0, 0, r0 - top : r1 - top, c0 - left : c1 - left].cpu().numpy()
                    out[k, r0:r1, c0:c1] = core[: height - r0, : width - c0]
    if not np.isfinite(out).all():
        raise ModelError(f"The segmenter {model.path} answers NaN on this tomogram; train or save it again.")
    return out


@dataclass(frozen=True)
class ContrastSign:
    """Which contrast a tomogram has, and what was seen under each.

    Attributes
    ----------
    sign
        +1: protein is dark; -1: protein is bright.
    evidence_dark, evidence_light
        Confident membrane under each assumption: the mean over the looked-at voxels of the probability above
        0.7, as a fraction of the volume.
    """

    sign: int
    evidence_dark: float
    evidence_light: float


def find_contrast_sign(
    prepared: PreparedTomogram, model: LoadedModel, *, device: str | torch.device | None = None
) -> ContrastSign:
    """Find out whether protein is dark or bright: the sign under which more membrane is seen.

    The middle of a handful of slices, spread over the middle half of the volume, is segmented both ways.
    Where no membrane is seen either way the answer is dark.

    Parameters
    ----------
    prepared
        The tomogram on the segmenter's grid; its own sign is not looked at.
    model
        A segmenter trained on dark protein.
    device
        Where to run; None: where the model is.
    """
    depth, height, width = prepared.shape
    count = min(SIGN_SLICES, depth)
    chosen = (depth * (0.25 + 0.5 * (np.arange(count) + 0.5) / count)).astype(int)
    top, left = max(0, (height - SIGN_CROP) // 2), max(0, (width - SIGN_CROP) // 2)
    dark = prepared.with_contrast_sign(1)
    evidence = np.zeros(2)
    for z in chosen.tolist():
        image = dark.slab(z, z + 1)[:, top : top + SIGN_CROP, left : left + SIGN_CROP]
        for k, sign in enumerate((1, -1)):
            probability = segment(np.float32(sign) * image, model, device=device)
            evidence[k] += float(np.mean(np.where(probability > SIGN_CONFIDENT, probability, 0.0))) / count
    return ContrastSign(1 if evidence[0] >= evidence[1] else -1, float(evidence[0]), float(evidence[1]))


def prune_membrane(
    mask: npt.NDArray[Any], voxel_size_angstrom: float, min_area_nm2: float
) -> npt.NDArray[np.uint8]:
    """Drop the small pieces of a membrane mask.

    The area of a piece is taken as half of its outer voxel faces, less the 1.5-fold excess of a staircase
    over the smooth surface: both sides of a sheet are counted, whatever its thickness.

    Parameters
    ----------
    mask
        (z, y, x), non-zero is membrane. Pieces hang together by faces, edges and corners.
    voxel_size_angstrom
        Of the mask.
    min_area_nm2
        Pieces with less area go.

    Returns
    -------
    (z, y, x) uint8, 0 or 1.
    """
    inside = np.ascontiguousarray(mask != 0)
    if min_area_nm2 <= 0 or not inside.any():
        return inside.astype(np.uint8)
    labels, count = cc3d.connected_components(inside, connectivity=26, return_N=True)
    faces = np.zeros(count + 1, np.int64)
    # Slice by slice, so that nothing but the labels is as large as the volume.
    for z in range(len(labels)):
        here = labels[z]
        for neighbour in (labels[z - 1] if z > 0 else None, labels[z + 1] if z + 1 < len(labels) else None):
            exposed = here if neighbour is None else here[neighbour == 0]
            faces += np.bincount(exposed.ravel(), minlength=count + 1)
        framed = np.pad(here, 1)
        for shifted in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
            faces += np.bincount(here[shifted == 0], minlength=count + 1)
    face_nm2 = (voxel_size_angstrom / 10.0) ** 2
    area = faces * face_nm2 / (2.0 * FACES_PER_AREA)
    keep = area >= min_area_nm2
    keep[0] = False
    kept: npt.NDArray[np.uint8] = keep.astype(np.uint8)[labels]
    return kept


def _squared_distance(inside: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.signedinteger[Any]]:
    """Squared distance within a slice to the nearest pixel inside, exact up to `reach` squared, more beyond.

    Along x from the nearest pixel to the left and right; then the least over offsets along y (the lower
    envelope of Felzenszwalb & Huttenlocher 2012, by trying all of the few offsets).
    """
    far = reach + 1
    # The largest sum is far**2 + reach**2; 16 bits go through the cache twice as fast.
    kind = np.int16 if far * far + reach * reach < 2**15 else np.int32
    width = inside.shape[1]
    x = np.arange(width, dtype=np.int32)
    left = np.maximum.accumulate(np.where(inside, x, np.int32(-far)), axis=1)
    right = np.minimum.accumulate(np.where(inside, x, np.int32(width + far))[:, ::-1], axis=1)[:, ::-1]
    distance = np.minimum(np.minimum(x - left, right - x), far).astype(kind)
    squared = distance * distance
    out: npt.NDArray[np.signedinteger[Any]] = squared.copy()
    for offset in range(1, min(reach, len(squared) - 1) + 1):
        raised = squared + kind(offset * offset)
        np.minimum(out[offset:], raised[:-offset], out=out[offset:])
        np.minimum(out[:-offset], raised[offset:], out=out[:-offset])
    return out


def search_region(
    membrane: npt.NDArray[Any],
    voxel_size_angstrom: float,
    distance_nm: float,
    z0: int = 0,
    z1: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Voxels within a distance of the membrane, for one slab.

    The distance is exact, between voxel centres, in whole numbers: a voxel's answer does not depend on the
    slab. Only the slices that the distance reaches are looked at.

    Parameters
    ----------
    membrane
        (z, y, x) of the whole grid, non-zero is membrane.
    voxel_size_angstrom
        Of the grid.
    distance_nm
        0 or more; 0 gives the membrane itself.
    z0, z1
        The slab; by default everything.

    Returns
    -------
    (z1 - z0, y, x) uint8, 0 or 1.
    """
    depth = len(membrane)
    z1 = depth if z1 is None else z1
    if not 0 <= z0 <= z1 <= depth:
        raise InputError(f"Slices {z0} to {z1} were asked of a membrane with {depth} slices.")
    if not (math.isfinite(distance_nm) and distance_nm >= 0):
        raise ConfigError(f"The search distance is {distance_nm!r} nm; give 0 or more.")
    radius = distance_nm * 10.0 / voxel_size_angstrom
    # Rounding errors of the division must not decide about a voxel that lies exactly at the distance.
    limit = math.floor(radius * radius + 1e-6)
    reach = math.isqrt(limit)
    out = np.zeros((z1 - z0, *membrane.shape[1:]), np.uint8)
    for z in range(max(0, z0 - reach), min(depth, z1 + reach)):
        inside = np.asarray(membrane[z]) != 0
        if not inside.any():
            continue
        # Farther than the reach from the membrane's bounding box there is nothing to find.
        box = tuple(
            slice(max(0, int(there[0]) - reach), int(there[-1]) + reach + 1)
            for there in (np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0)))
        )
        squared = _squared_distance(inside[box], reach)
        for target in range(max(z0, z - reach), min(z1, z + reach + 1)):
            out[target - z0][box] |= squared <= limit - (target - z) ** 2
    return out
