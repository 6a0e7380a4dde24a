"""The U-Net on one slice: membrane probability, in tiles where the slice is large."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels.padding import pad_by_reflection
from t3ssfast.models import LoadedModel

__all__ = [
    "MAX_TILE",
    "MIN_TILE",
    "NEIGHBOUR_WEIGHT",
    "SIDE_MULTIPLE",
    "cut_tiles",
    "nan_error",
    "segment_on_device",
    "segment_slice",
    "slice_weights",
    "tile_side",
    "tiles_at_a_time",
    "weighted_mean",
]

# Weight of each of the two neighbours with which the probability of a slice is averaged.
NEIGHBOUR_WEIGHT = 0.25
# Sides are padded to multiples of this: the poolings of a U-Net of depth 4.
SIDE_MULTIPLE = 16
# A slice is cut into tiles only where a side is longer than this.
MAX_TILE = 1024
# Below this, more than half of a tile is halo.
MIN_TILE = 512
# The receptive field of a U-Net of depth 4 reaches 92 px to each side (two 3x3 convolutions per level, down
# and up). A multiple of 16 keeps the poolings of a tile aligned with those of the whole slice.
TILE_HALO = 96
# Bytes of activations that a U-Net of base 16 holds for each pixel of a tile.
TILE_BYTES_PER_PIXEL = 512
TILE_BUDGET_FRACTION = 0.25


def segment_slice(
    around: npt.NDArray[np.float32] | torch.Tensor,
    model: LoadedModel,
    *,
    engine: str = "auto",
    max_tile: int = MAX_TILE,
) -> npt.NDArray[np.float32]:
    """Membrane probability of one slice, (y, x) float32 in [0, 1]; padded by reflection if needed.

    Parameters
    ----------
    around
        (slices, y, x) float32: the slice in the middle of as many consecutive ones as the model sees.
    engine
        "auto", "torch", "torch-bfloat16", "torch-int8", "openvino" or "cuda-graphs" (see
        `SegmenterEngine`).
    max_tile
        Longest side of a tile, pixels; a multiple of 16, at least 512. Changes answers by rounding only.
    """
    out = segment_on_device(around, model, engine=engine, max_tile=max_tile).cpu().numpy()
    if not np.isfinite(out).all():
        raise nan_error(model)
    return out


def segment_on_device(
    around: npt.NDArray[np.float32] | torch.Tensor, model: LoadedModel, *, engine: str, max_tile: int
) -> torch.Tensor:
    """Do the work of `segment_slice`; the result stays on a CUDA device, and is not checked for NaN."""
    if max_tile < MIN_TILE or max_tile % SIDE_MULTIPLE:
        raise ConfigError(f"max_tile is {max_tile}; give a multiple of {SIDE_MULTIPLE}, at least {MIN_TILE}.")
    height, width = around.shape[1:]
    multiple = model.side_multiple
    pad = (0, -height % multiple), (0, -width % multiple)
    if model.device.type == "cuda":
        out = torch.empty((height, width), device=model.device)
    else:
        # NumPy's memory: it asks for huge pages, PyTorch's does not.
        out = torch.from_numpy(np.empty((height, width), np.float32))
    rows, columns = (
        cut_tiles(n + after, max_tile, multiple) for n, (_, after) in zip(around.shape[1:], pad, strict=True)
    )
    run = model.engine(engine)
    with torch.inference_mode():
        if not isinstance(around, torch.Tensor):
            around = torch.from_numpy(np.ascontiguousarray(around, dtype=np.float32))
        image = pad_by_reflection(around, *pad)[None]
        for r0, r1, top, bottom in rows:
            for c0, c1, left, right in columns:
                tile = image[:, :, top:bottom, left:right].to(model.device)
                with model.named_errors(f"slices of {tile.shape[2]} x {tile.shape[3]} px"):
                    answer = model.probability(run(tile))
                core = answer[0, 0, r0 - top : r1 - top, c0 - left : c1 - left]
                out[r0:r1, c0:c1] = core[: height - r0, : width - c0]
    return out


def nan_error(model: LoadedModel) -> ModelError:
    """Return the error of a segmenter whose probability is NaN."""
    return ModelError(f"The segmenter {model.path} answers NaN on this tomogram; train or save it again.")


def slice_weights(z: int, depth: int, stride: int = 1) -> dict[int, float]:
    """Return the segmented slices, and their weights, that make up the membrane probability of slice z.

    Every `stride`-th slice of `depth` is segmented, and the last one; between them, the probability is
    interpolated. A slice is then averaged with its two neighbours: they share their membrane, but only part
    of their noise. At a face of the tomogram, the slice itself takes the place of the missing neighbour.
    """
    weights: dict[int, float] = {}
    for n, weight in ((z - 1, NEIGHBOUR_WEIGHT), (z, 1 - 2 * NEIGHBOUR_WEIGHT), (z + 1, NEIGHBOUR_WEIGHT)):
        n = min(max(n, 0), depth - 1)
        below = n // stride * stride
        above = min(below + stride, depth - 1)
        share = 0.0 if n == below else (n - below) / (above - below)
        for slice_, part in ((below, 1 - share), (above, share)):
            if part:
                weights[slice_] = weights.get(slice_, 0.0) + weight * part
    return weights


def weighted_mean(
    weights: Mapping[int, float], segmented: Mapping[int, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Return the mean of segmented slices, (y, x) float32, with the weights of `slice_weights`."""
    terms = (np.float32(weight) * segmented[z] for z, weight in sorted(weights.items()))
    total = next(terms)
    for term in terms:
        total += term
    return np.asarray(total)


def tile_side(config: DetectConfig) -> int:
    """Longest side of the segmenter's tiles within the memory budget, pixels."""
    side = math.isqrt(int(config.memory_budget_bytes * TILE_BUDGET_FRACTION / TILE_BYTES_PER_PIXEL))
    return min(max(side // SIDE_MULTIPLE * SIDE_MULTIPLE, MIN_TILE), MAX_TILE)


def tiles_at_a_time(config: DetectConfig, shape_yx: tuple[int, ...], max_tile: int) -> int:
    """How many tiles of slices of a shape fit into the memory budget, at least 1."""
    tile = math.prod(min(length, max_tile) for length in shape_yx)
    return max(1, int(config.memory_budget_bytes * TILE_BUDGET_FRACTION / (TILE_BYTES_PER_PIXEL * tile)))


def cut_tiles(length: int, max_tile: int, multiple: int = SIDE_MULTIPLE) -> list[tuple[int, int, int, int]]:
    """Cut one side, a multiple of `multiple`, into tiles.

    Returns (core start, core end, tile start, tile end) of each, in pixels.

    The cores cover the side without overlap. All tiles have one size, because engines prepare themselves for
    each size.
    """
    if length <= max_tile:
        return [(0, length, 0, length)]
    halo = math.ceil(TILE_HALO / multiple) * multiple
    inner = length - 2 * halo
    count = math.ceil(inner / (max_tile - 2 * halo))
    core = math.ceil(inner / count / multiple) * multiple
    size = core + 2 * halo
    starts = [min(k * core, length - size) for k in range(count)]
    edges = [0, *(start + halo for start in starts[1:]), length]
    return [(a, b, start, start + size) for a, b, start in zip(edges[:-1], edges[1:], starts, strict=True)]
