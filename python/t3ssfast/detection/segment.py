"""Where the membrane is: the U-Net slice by slice, and what follows from its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.sparse import csgraph

from t3ssfast.detection.connected_components import label_components
from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.kernels.padding import pad_by_reflection
from t3ssfast.models import LoadedModel

__all__ = [
    "ContrastSign",
    "average_slices",
    "find_contrast_sign",
    "prune_membrane",
    "segment",
    "segment_slice",
]

# Sides are padded to multiples of this: the poolings of a U-Net of depth 4.
SIDE_MULTIPLE = 16
# A slice is cut into tiles only where a side exceeds this.
MAX_TILE = 1024
# Below this, more than half of a tile is halo.
MIN_TILE = 512
# What a pixel of a depth-4 U-Net can see on each side is 92 px (two 3x3 convolutions per level, down and up);
# as a multiple of 16 it keeps the poolings of a tile in step with those of the whole slice.
TILE_HALO = 96
# What a slice's neighbours count for in `average_slices`, each, of 1.
NEIGHBOUR_WEIGHT = 0.25
# Slices and side of the crop that decide the contrast.
SIGN_SLICES = 5
SIGN_CROP = 512
# A voxel counts as seen membrane from here on.
SIGN_CONFIDENT = 0.7
# The faces of voxels along a surface add up to 1.5 times its area, averaged over directions (Cauchy-Crofton).
FACES_PER_AREA = 1.5
# Voxels of a mask that are labelled at a time; it bounds memory and never changes results.
LABELLED_VOXELS = 1 << 21


def _tiles(length: int, max_tile: int) -> list[tuple[int, int, int, int]]:
    """Cores and their surroundings along one side: (core start, core end, start, end).

    All tiles are of one size, because engines prepare themselves for each size.
    """
    if length <= max_tile:
        return [(0, length, 0, length)]
    inner = length - 2 * TILE_HALO
    count = math.ceil(inner / (max_tile - 2 * TILE_HALO))
    core = math.ceil(inner / count / SIDE_MULTIPLE) * SIDE_MULTIPLE
    size = core + 2 * TILE_HALO
    starts = [min(k * core, length - size) for k in range(count)]
    edges = [0, *(start + TILE_HALO for start in starts[1:]), length]
    return [(a, b, start, start + size) for a, b, start in zip(edges[:-1], edges[1:], starts, strict=True)]


def segment(
    slab: npt.NDArray[np.float32] | torch.Tensor,
    model: LoadedModel,
    *,
    device: str | torch.device | None = None,
    engine: str = "auto",
    max_tile: int = MAX_TILE,
) -> npt.NDArray[np.float32]:
    """Membrane probability of prepared slices.

    Every slice is asked together with as many of its neighbours as the model sees (`ModelMetadata.slices`);
    beyond a face of the slab that is its last slice. The answer for a slice whose neighbours are in the slab
    does not depend on the rest of it, and on the tiles by no more than rounding.

    Parameters
    ----------
    slab
        (z, y, x) float32 on the model's grid, as `PreparedTomogram.slab` or `slab_on_device` gives it.
    model
        A segmenter.
    device
        Where to run; None: where the model is.
    engine
        What computes: "auto", "torch", "openvino" or "cuda-graphs" (see `SegmenterEngine`).
    max_tile
        Longest side of a tile, a multiple of 16, at least 512.

    Returns
    -------
    (z, y, x) float32 in [0, 1].

    Raises
    ------
    InputError
        The slab is not three-dimensional or has an empty side.
    ConfigError
        There is no such engine here, or the tile is too small.
    ModelError
        The model answers NaN, or cannot be run by the engine that was asked for.
    """
    if slab.ndim != 3 or min(slab.shape[1:]) == 0:
        raise InputError(
            f"A slab of shape {tuple(slab.shape)} cannot be segmented; "
            "give (z, y, x) with y, x of at least 1."
        )
    if device is not None:
        model = model.to(device)
    out = np.empty(tuple(slab.shape), np.float32)
    for k in range(len(slab)):
        around = neighbouring_slices(slab, k, model.metadata.slices)
        out[k] = segment_slice(around, model, engine=engine, max_tile=max_tile)
    return out


def segment_slice(
    around: npt.NDArray[np.float32] | torch.Tensor,
    model: LoadedModel,
    *,
    engine: str = "auto",
    max_tile: int = MAX_TILE,
) -> npt.NDArray[np.float32]:
    """Membrane probability of one prepared slice.

    It is padded by reflection to a multiple of 16, and asked in tiles with a halo where a side is longer than
    a tile.

    Parameters
    ----------
    around
        (slices, y, x) float32: the slice in the middle of as many in a row as the model sees.
    model, engine, max_tile
        As for `segment`.

    Returns
    -------
    (y, x) float32 in [0, 1].

    Raises
    ------
    ConfigError, ModelError
        As `segment`.
    """
    if max_tile < MIN_TILE or max_tile % SIDE_MULTIPLE:
        raise ConfigError(f"max_tile is {max_tile}; give a multiple of {SIDE_MULTIPLE}, at least {MIN_TILE}.")
    height, width = around.shape[1:]
    pad = (0, -height % SIDE_MULTIPLE), (0, -width % SIDE_MULTIPLE)
    out = np.empty((height, width), np.float32)
    rows, columns = (_tiles(n + after, max_tile) for n, (_, after) in zip((height, width), pad, strict=True))
    run = model.engine(engine)
    with torch.inference_mode():
        if not isinstance(around, torch.Tensor):
            around = torch.from_numpy(np.ascontiguousarray(around, dtype=np.float32))
        image = pad_by_reflection(around, *pad)[None]
        for r0, r1, top, bottom in rows:
            for c0, c1, left, right in columns:
                tile = image[:, :, top:bottom, left:right].to(model.device)
                answer = model.probability(run(tile))
                core = answer[0, 0, r0 - top : r1 - top, c0 - left : c1 - left].cpu().numpy()
                out[r0:r1, c0:c1] = core[: height - r0, : width - c0]
    if not np.isfinite(out).all():
        raise ModelError(f"The segmenter {model.path} answers NaN on this tomogram; train or save it again.")
    return out


def average_slices(
    below: npt.NDArray[np.float32], here: npt.NDArray[np.float32], above: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Membrane probability of a slice, averaged with its neighbours'.

    The network answers for one slice at a time, and the noise it saw is not quite that of the next, while a
    membrane goes on through both.

    Parameters
    ----------
    below, here, above
        (y, x) of three slices in a row; at a face of a tomogram the slice itself stands for the missing one.
    """
    average: npt.NDArray[np.float32] = (1 - 2 * NEIGHBOUR_WEIGHT) * here + NEIGHBOUR_WEIGHT * (below + above)
    return average


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
    prepared: PreparedTomogram,
    model: LoadedModel,
    *,
    device: str | torch.device | None = None,
    engine: str = "auto",
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
    engine
        As for `segment`.
    """
    depth, height, width = prepared.shape
    count = min(SIGN_SLICES, depth)
    if device is not None:
        model = model.to(device)
    chosen = (depth * (0.25 + 0.5 * (np.arange(count) + 0.5) / count)).astype(int)
    top, left = max(0, (height - SIGN_CROP) // 2), max(0, (width - SIGN_CROP) // 2)
    dark = prepared.with_contrast_sign(1)
    evidence = np.zeros(2)
    for z in chosen.tolist():
        around = dark.slab_around(z, model.metadata.slices)
        image = around[:, top : top + SIGN_CROP, left : left + SIGN_CROP]
        for k, sign in enumerate((1, -1)):
            probability = segment_slice(np.float32(sign) * image, model, engine=engine)
            evidence[k] += float(np.mean(np.where(probability > SIGN_CONFIDENT, probability, 0.0))) / count
    return ContrastSign(1 if evidence[0] >= evidence[1] else -1, float(evidence[0]), float(evidence[1]))


def prune_membrane(
    mask: npt.NDArray[np.uint8] | npt.NDArray[np.bool_],
    voxel_size_angstrom: float,
    min_area_nm2: float,
    *,
    above: int = 0,
    slab_slices: int | None = None,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Drop the small pieces of a membrane mask.

    The area of a piece is taken as half of its outer voxel faces, less the 1.5-fold excess of a staircase
    over the smooth surface: both sides of a sheet are counted, whatever its thickness.

    Pieces are labelled slab by slab and joined where they touch across a seam, so that no labels of the
    whole volume are held; the answer is that of labelling it at once.

    Parameters
    ----------
    mask
        (z, y, x) of levels. Pieces hang together by faces, edges and corners.
    voxel_size_angstrom
        Of the mask.
    min_area_nm2
        Pieces with less area go.
    above
        What is above this level is membrane.
    slab_slices
        Slices labelled at a time; None takes about two million voxels. Never changes the answer.
    out
        (z, y, x) to write into; may be the mask itself.

    Returns
    -------
    (z, y, x) uint8: the mask's own levels, and `above` in the pieces that go; `out` where it was given.
    """
    depth = len(mask)
    kept = np.empty(mask.shape, np.uint8) if out is None else out
    if min_area_nm2 <= 0 or not mask.size:
        kept[...] = mask
        return kept
    thickness = slab_slices or max(1, LABELLED_VOXELS // max(1, math.prod(mask.shape[1:])))
    slabs = [(z0, min(z0 + thickness, depth)) for z0 in range(0, depth, thickness)]
    # Labels of a slab count from 1; added to its offset, from 1 over the whole volume.
    offsets, faces, seams = [0], [np.zeros(1, np.int64)], []
    below: npt.NDArray[Any] | None = None
    for z0, z1 in slabs:
        labels, count = label_components(mask[z0:z1] > above)
        faces.append(_count_faces(mask, above, labels, count, z0, z1))
        if below is not None:
            seams.append(_touching(below, labels[0]) + np.array([offsets[-2], offsets[-1]]))
        offsets.append(offsets[-1] + count)
        below = labels[-1].copy()
    pieces = _join(seams, offsets[-1] + 1)
    face_nm2 = (voxel_size_angstrom / 10.0) ** 2
    area = np.bincount(pieces, np.concatenate(faces)) * face_nm2 / (2.0 * FACES_PER_AREA)
    # The most that a voxel of each piece may hold.
    most = np.where((area >= min_area_nm2)[pieces], 255, above).astype(np.uint8)
    for (z0, z1), offset in zip(slabs, offsets[:-1], strict=True):
        labels, count = label_components(mask[z0:z1] > above)
        # Label 0 is what lies outside of all pieces, and holds no more than `above`.
        np.minimum(mask[z0:z1], np.take(most[offset : offset + count + 1], labels), out=kept[z0:z1])
    return kept


def _count_faces(
    mask: npt.NDArray[Any], above: int, labels: npt.NDArray[Any], count: int, z0: int, z1: int
) -> npt.NDArray[np.int64]:
    """Outer voxel faces of each label of a slab, from label 1 on."""
    faces = np.zeros(count + 1, np.float64)
    for z in range(z0, z1):
        here = np.asarray(mask[z]) > above
        # A voxel has six faces, less one for each neighbour in the mask; beyond the volume there is none.
        exposed = np.full(here.shape, 6, np.uint8)
        exposed[1:] -= here[:-1]
        exposed[:-1] -= here[1:]
        exposed[:, 1:] -= here[:, :-1]
        exposed[:, :-1] -= here[:, 1:]
        for neighbour in (z - 1, z + 1):
            if 0 <= neighbour < len(mask):
                exposed -= np.asarray(mask[neighbour]) > above
        inside = np.flatnonzero(here)
        faces += np.bincount(labels[z - z0].ravel()[inside], exposed.ravel()[inside], minlength=count + 1)
    # Sums of small whole numbers are exact in float64.
    return faces[1:].astype(np.int64)


def _touching(below: npt.NDArray[Any], above: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(n, 2) pairs of labels of two neighbouring slices that touch by a face, an edge or a corner."""
    width, framed = below.shape[1], np.pad(above, 1).ravel()
    inside = np.flatnonzero(below)
    # Of the frame's first row and column, which lie one up and one to the left.
    corner = inside + 2 * (inside // width)
    lower = below.ravel()[inside].astype(np.int64) << 32
    pairs = []
    for dy in range(3):
        for dx in range(3):
            pair = lower | framed[corner + (dy * (width + 2) + dx)]
            # Neighbours along a row mostly repeat a pair: only where it changes does the sort below see it.
            pairs.append(pair[np.flatnonzero(np.diff(pair, prepend=-1))])
    both = np.unique(np.concatenate(pairs))
    both = both[(both & 0xFFFFFFFF) != 0]
    return np.stack([both >> 32, both & 0xFFFFFFFF], axis=1)


def _join(seams: list[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int32]:
    """Piece that each of `count` labels belongs to, from the pairs of labels that touch."""
    pairs = np.concatenate(seams) if seams else np.zeros((0, 2), np.int64)
    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    pieces: npt.NDArray[np.int32] = csgraph.connected_components(graph, directed=False)[1]
    return pieces
