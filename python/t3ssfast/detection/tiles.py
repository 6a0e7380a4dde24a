"""Tiles: a slice too large for the memory budget is segmented in overlapping parts."""

from __future__ import annotations

import math

from t3ssfast.detection.config import DetectConfig

__all__ = ["MAX_TILE", "MIN_TILE", "SIDE_MULTIPLE", "cut_tiles", "tile_side"]

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


def tile_side(config: DetectConfig) -> int:
    """Longest side of the segmenter's tiles within the memory budget, pixels."""
    side = math.isqrt(int(config.memory_budget_bytes * TILE_BUDGET_FRACTION / TILE_BYTES_PER_PIXEL))
    return min(max(side // SIDE_MULTIPLE * SIDE_MULTIPLE, MIN_TILE), MAX_TILE)


def cut_tiles(length: int, max_tile: int) -> list[tuple[int, int, int, int]]:
    """Cut one side into tiles: (core start, core end, tile start, tile end) of each, in pixels.

    The cores cover the side without overlap. All tiles have one size, because engines prepare themselves for
    each size.
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
