"""Window statistics on a coarse grid of blocks.

A single slice is mostly noise. A T3SS is some 30 nm long, so the mean of twelve slices (16 nm at 13.6 A)
still shows it, and on a grid of fewer points the statistics cost next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.search_region import SearchRegion, any_per_square
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics

__all__ = ["BLOCK_YX", "BLOCK_Z", "BlockStatistics"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Voxels of the model's grid in a block.
BLOCK_Z, BLOCK_YX = 4, 2
# Planes of blocks, and blocks of each, from which the scale of the statistics is estimated.
SCALE_PLANES, SCALE_BLOCKS = 5, 2_000
# Statistics are clipped to this many robust standard deviations from the median.
CLIP = 8.0


@dataclass
class BlockStatistics:
    """Statistics of windows around blocks, standardised by the blocks near the tomogram's own membrane.

    `sizes` are the sides of the windows in blocks; `statistics` are names known to `window_statistics`.
    """

    grid: PreparedTomogram
    search: SearchRegion
    sizes: tuple[int, ...]
    statistics: tuple[str, ...]
    _means: dict[int, FloatArray] = field(default_factory=dict, init=False)

    @property
    def planes(self) -> int:
        """Number of planes of blocks along z."""
        return -(-self.grid.shape[0] // BLOCK_Z)

    def features(self, k: int, blocks: BoolArray, slab: FloatArray | None = None, z0: int = 0) -> FloatArray:
        """Return (F, n) float32 features of n blocks, given as a (y, x) mask, of plane k: from slice 4 k.

        Features are every statistic of every size, statistics fastest, then the membrane fraction of every
        size. Slices are taken from a prepared slab that begins at slice z0, where it holds them.
        """
        centre, spread = self._scale
        values = self._unscaled(k, blocks, slab, z0)
        scaled = (values[: len(centre)] - centre[:, None]) / spread[:, None]
        values[: len(centre)] = np.clip(scaled, -CLIP, CLIP)
        return values

    def region(self, k: int) -> BoolArray:
        """Return the blocks of a plane that hold a voxel of the search region in its middle slice."""
        z = min(k * BLOCK_Z + BLOCK_Z // 2, self.grid.shape[0] - 1)
        return any_per_square(self.search.slab(z, z + 1), BLOCK_YX)

    def _unscaled(self, k: int, blocks: BoolArray, slab: FloatArray | None, z0: int) -> FloatArray:
        neighbours = (max(k - 1, 0), k, min(k + 1, self.planes - 1))
        below, middle, above = (self._mean(j, slab, z0) for j in neighbours)
        image = (below + middle + above) / np.float32(3)
        membrane = _block_means(self.search.membrane[k * BLOCK_Z : (k + 1) * BLOCK_Z].astype(np.float32))
        parts = [
            np.asarray(window_statistics(pad_for_windows(plane[None], size), size, names, mask=blocks[None]))
            for plane, names in ((image, self.statistics), (membrane, ("mean",)))
            for size in self.sizes
        ]
        return np.concatenate(parts)

    def _mean(self, k: int, slab: FloatArray | None, z0: int) -> FloatArray:
        if k not in self._means:
            first, last = k * BLOCK_Z, min((k + 1) * BLOCK_Z, self.grid.shape[0])
            if slab is not None and z0 <= first and last <= z0 + len(slab):
                values = slab[first - z0 : last - z0]
            else:
                values = self.grid.slab(first, last)
            # Planes are used in order; those two behind are not needed again.
            self._means = {j: means for j, means in self._means.items() if j >= k - 2}
            self._means[k] = _block_means(values)
        return self._means[k]

    @cached_property
    def _scale(self) -> tuple[FloatArray, FloatArray]:
        """Median and robust standard deviation of each statistic, near the whole membrane."""
        membrane = self.search.membrane
        shown = [k for k in range(self.planes) if membrane[k * BLOCK_Z : (k + 1) * BLOCK_Z].any()]
        samples = []
        for i in np.unique(np.linspace(0, len(shown) - 1, SCALE_PLANES).astype(int)):
            region = self.region(shown[i])
            near = np.flatnonzero(region)
            sample = np.zeros(region.shape, bool)
            sample.flat[near[:: max(1, len(near) // SCALE_BLOCKS)]] = True
            samples.append(self._unscaled(shown[i], sample, None, 0))
        self._means.clear()
        count = len(self.sizes) * len(self.statistics)
        values = np.concatenate(samples, axis=1)[:count]
        values = values[:, np.isfinite(values).all(axis=0)]
        quartiles = np.percentile(values, [25, 50, 75], axis=1) if values.size else np.zeros((3, count))
        spread = np.maximum((quartiles[2] - quartiles[0]) / 1.349, 1e-6)
        return quartiles[1].astype(np.float32), spread.astype(np.float32)


def _block_means(values: FloatArray) -> FloatArray:
    """Return the means over blocks of (z, y, x) slices, all along z; the last blocks repeat the edge."""
    flat = values.mean(axis=0, dtype=np.float32)
    padded = np.pad(flat, [(0, -n % BLOCK_YX) for n in flat.shape], mode="edge")
    rows, columns = (n // BLOCK_YX for n in padded.shape)
    squares = padded.reshape(rows, BLOCK_YX, columns, BLOCK_YX)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))
