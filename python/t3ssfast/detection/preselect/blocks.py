"""Statistics of windows on a coarser grid: blocks of voxels, averaged along z as far as a particle reaches.

A single slice is mostly noise; the mean of twelve slices (16 nm at 13.6 A) shows what a T3SS, some 30 nm
long, looks like in all of them, and a grid sixteen times as coarse makes its statistics cost next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics

__all__ = ["BLOCK_YX", "BLOCK_Z", "BlockStatistics"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Voxels of the model's grid in a block.
BLOCK_Z, BLOCK_YX = 4, 2
# The tomogram's own scale is taken from so many planes of blocks, and so many blocks of each.
SCALE_PLANES = 5
SCALE_BLOCKS = 2_000
# Values farther than this from the median, in robust standard deviations, are so far and no farther.
CLIP = 8.0


class BlockStatistics:
    """Statistics of the windows about blocks, in units of the tomogram's own spread near its membrane.

    Parameters
    ----------
    grid
        The tomogram on the classifier's grid.
    search
        The region about the membrane, on that grid.
    sizes
        Edges of the windows, in blocks.
    statistics
        Names as `window_statistics` knows them.
    """

    def __init__(
        self,
        grid: PreparedTomogram,
        search: SearchRegion,
        *,
        sizes: tuple[int, ...],
        statistics: tuple[str, ...],
    ) -> None:
        self._grid, self._search, self._membrane = grid, search, search.membrane
        self.sizes, self.statistics = sizes, statistics
        self._means: dict[int, FloatArray] = {}
        self._scale: tuple[FloatArray, FloatArray] | None = None

    @property
    def planes(self) -> int:
        """Planes of blocks along z."""
        return -(-self._grid.shape[0] // BLOCK_Z)

    def features(self, k: int, blocks: BoolArray, slab: FloatArray | None = None, z0: int = 0) -> FloatArray:
        """(F, n) features of the n wanted blocks of a plane.

        Every statistic of every size, then the share of membrane at every size.

        Parameters
        ----------
        k
            Plane of blocks: slices 4 k to 4 k + 3.
        blocks
            (blocks along y, blocks along x), true where wanted.
        slab, z0
            Prepared slices from z0 on, where the caller has them; others are prepared here.
        """
        centre, spread = self._own_scale()
        values = self._raw(k, blocks, slab, z0)
        counted = len(centre)
        values[:counted] = np.clip((values[:counted] - centre[:, None]) / spread[:, None], -CLIP, CLIP)
        return values

    def region(self, k: int) -> BoolArray:
        """Blocks of a plane that hold something of the search region in its middle slice."""
        z = min(k * BLOCK_Z + BLOCK_Z // 2, self._grid.shape[0] - 1)
        return in_blocks(self._search.slab(z, z + 1)[0])

    def _raw(self, k: int, blocks: BoolArray, slab: FloatArray | None, z0: int) -> FloatArray:
        image = (
            sum(self._mean(j, slab, z0) for j in (max(k - 1, 0), k, min(k + 1, self.planes - 1)))
            / np.float32(3)
        )[None]
        membrane = _block_means(self._membrane[k * BLOCK_Z : (k + 1) * BLOCK_Z].astype(np.float32))[None]
        wanted = blocks[None]
        parts = [
            np.asarray(window_statistics(pad_for_windows(image, size), size, self.statistics, mask=wanted))
            for size in self.sizes
        ]
        parts += [
            np.asarray(window_statistics(pad_for_windows(membrane, size), size, ("mean",), mask=wanted))
            for size in self.sizes
        ]
        return np.concatenate(parts)

    def _mean(self, k: int, slab: FloatArray | None, z0: int) -> FloatArray:
        """Means of a plane's blocks."""
        if k not in self._means:
            first, last = k * BLOCK_Z, min((k + 1) * BLOCK_Z, self._grid.shape[0])
            if slab is not None and z0 <= first and last <= z0 + len(slab):
                values = slab[first - z0 : last - z0]
            else:
                values = self._grid.slab(first, last)
            # Planes are asked for in order: what lies two behind is not asked for again.
            for done in [j for j in self._means if j < k - 2]:
                del self._means[done]
            self._means[k] = _block_means(values)
        return self._means[k]

    def _own_scale(self) -> tuple[FloatArray, FloatArray]:
        """Median and robust standard deviation of each statistic, over windows from all over the membrane."""
        if self._scale is None:
            shown = [k for k in range(self.planes) if self._membrane[k * BLOCK_Z : (k + 1) * BLOCK_Z].any()]
            chosen = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, SCALE_PLANES).astype(int))]
            samples = []
            for k in chosen:
                blocks = self.region(k)
                there = np.flatnonzero(blocks)
                some = np.zeros(blocks.size, bool)
                some[there[:: max(1, len(there) // SCALE_BLOCKS)]] = True
                samples.append(self._raw(k, some.reshape(blocks.shape), None, 0))
            counted = len(self.sizes) * len(self.statistics)
            values = np.concatenate(samples, axis=1)[:counted]
            values = values[:, np.isfinite(values).all(axis=0)]
            low, middle, high = (
                np.percentile(values, [25, 50, 75], axis=1) if values.size else np.zeros((3, counted))
            )
            self._scale = (
                middle.astype(np.float32),
                np.maximum((high - low) / 1.349, 1e-6).astype(np.float32),
            )
            self._means.clear()
        return self._scale


def in_blocks(plane: npt.NDArray[Any]) -> BoolArray:
    """Blocks that hold something of a (y, x) slice."""
    height, width = plane.shape
    padded = np.pad(plane != 0, ((0, -height % BLOCK_YX), (0, -width % BLOCK_YX)))
    rows, columns = (n // BLOCK_YX for n in padded.shape)
    return np.asarray(padded.reshape(rows, BLOCK_YX, columns, BLOCK_YX).any(axis=(1, 3)))


def _block_means(values: FloatArray) -> FloatArray:
    """Means over blocks of some (z, y, x) slices, all along z; the last blocks repeat the edge."""
    flat = values.mean(axis=0, dtype=np.float32)
    height, width = flat.shape
    padded = np.pad(flat, ((0, -height % BLOCK_YX), (0, -width % BLOCK_YX)), mode="edge")
    rows, columns = (n // BLOCK_YX for n in padded.shape)
    means: FloatArray = padded.reshape(rows, BLOCK_YX, columns, BLOCK_YX).mean(axis=(1, 3), dtype=np.float32)
    return means
