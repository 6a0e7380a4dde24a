"""The U-Net on one slice: membrane probability, in tiles where the slice is large."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.tiles import MAX_TILE, MIN_TILE, SIDE_MULTIPLE, cut_tiles
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels.padding import pad_by_reflection
from t3ssfast.models import LoadedModel

__all__ = ["average_slices", "segment_slice"]

# Weight of each of the two neighbours in `average_slices`.
NEIGHBOUR_WEIGHT = 0.25


def segment_slice(
    around: npt.NDArray[np.float32] | torch.Tensor,
    model: LoadedModel,
    *,
    engine: str = "auto",
    max_tile: int = MAX_TILE,
) -> npt.NDArray[np.float32]:
    """Membrane probability of one slice, padded by reflection to a multiple of 16.

    Parameters
    ----------
    around
        (slices, y, x) float32: the slice in the middle of as many consecutive ones as the model sees.
    model
        A segmenter.
    engine
        "auto", "torch", "openvino" or "cuda-graphs" (see `SegmenterEngine`).
    max_tile
        Longest side of a tile, pixels; a multiple of 16, at least 512. Changes answers by rounding only.

    Returns
    -------
    (y, x) float32 in [0, 1].

    Raises
    ------
    ConfigError
        If the engine is unknown or not available, or the tile is too small.
    ModelError
        If the model answers NaN, or the engine cannot run it.
    """
    if max_tile < MIN_TILE or max_tile % SIDE_MULTIPLE:
        raise ConfigError(f"max_tile is {max_tile}; give a multiple of {SIDE_MULTIPLE}, at least {MIN_TILE}.")
    height, width = around.shape[1:]
    pad = (0, -height % SIDE_MULTIPLE), (0, -width % SIDE_MULTIPLE)
    out = np.empty((height, width), np.float32)
    rows, columns = (
        cut_tiles(n + after, max_tile) for n, (_, after) in zip((height, width), pad, strict=True)
    )
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
    below: npt.NDArray[np.float32], middle: npt.NDArray[np.float32], above: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Average the membrane probability of a slice with its neighbours'.

    Neighbouring slices share their membrane but only part of their noise.

    Parameters
    ----------
    below, middle, above
        (y, x) of three consecutive slices; at a face of the tomogram the slice itself replaces the missing
        one.
    """
    average: npt.NDArray[np.float32] = (1 - 2 * NEIGHBOUR_WEIGHT) * middle + NEIGHBOUR_WEIGHT * (
        below + above
    )
    return average
