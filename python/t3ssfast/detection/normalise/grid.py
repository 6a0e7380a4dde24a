"""A model's grid over a tomogram's voxels: the weights of the one in the other, axis by axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Axis", "Between", "FloatArray", "resampled"]

FloatArray = npt.NDArray[np.float32]


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2 (Keys 1981, eq. 15), support +-2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class Axis:
    """One axis of the model's grid over one axis of the tomogram.

    Grid point i lies at ``i * step + origin`` voxels of the tomogram; both grids share their centre.
    """

    size: int
    step: float
    origin: float
    # Taps and weights of each grid point, (size, taps); taps beyond the edge repeat the edge voxel.
    taps: npt.NDArray[np.int64]
    weights: FloatArray

    @classmethod
    def make(cls, length: int, step: float) -> Axis:
        size = max(1, round(length / step))
        origin = (length - 1) / 2 - step * (size - 1) / 2
        if step == 1.0:
            taps = np.arange(size)[:, None]
            return cls(size, step, origin, taps, np.ones((size, 1), np.float32))
        # Widened by the step where the grid is coarser, so that what it cannot hold is filtered out.
        width = max(1.0, step)
        reach = math.ceil(2 * width)
        position = np.arange(size) * step + origin
        taps = np.floor(position).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
        weights = _cubic((taps - position[:, None]) / width)
        weights /= weights.sum(axis=1, keepdims=True)
        return cls(size, step, origin, np.clip(taps, 0, length - 1), weights.astype(np.float32))

    def matrix(self, length: int) -> sparse.csr_array:
        """(size, length) weights as a sparse matrix."""
        rows = np.repeat(np.arange(self.size), self.taps.shape[1])
        return sparse.csr_array((self.weights.ravel(), (rows, self.taps.ravel())), shape=(self.size, length))

    def between(self, length: int) -> Between:
        """Where each grid point lies between the tomogram's voxels."""
        return Between.make(np.arange(self.size) * self.step + self.origin, length)

    def between_inverse(self, length: int) -> Between:
        """Where each voxel of the tomogram lies between the grid's points."""
        return Between.make((np.arange(length) - self.origin) / self.step, self.size)


@dataclass(frozen=True)
class Between:
    """Positions on an axis as two neighbours each, and the weight of the second; clamped to the ends."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: FloatArray

    @classmethod
    def make(cls, position: npt.NDArray[np.floating[Any]], length: int) -> Between:
        # Positions that should be whole numbers are, but for rounding.
        inside = np.clip(np.round(position, 9), 0, length - 1)
        first = np.floor(inside).astype(np.int64)
        return cls(first, np.minimum(first + 1, length - 1), (inside - first).astype(np.float32))


def resampled(
    plane: Callable[[int], FloatArray], axes: Iterable[Between], z0: int, z1: int, threshold: float
) -> npt.NDArray[np.uint8]:
    """Where a volume, linearly interpolated at slices z0 up to z1 of other positions, reaches a threshold.

    Nearest voxels would shift the faces of a membrane by up to half a voxel: of one three voxels thick, as
    much as a tenth of the overlap.
    """
    z, y, x = axes
    out = np.empty((z1 - z0, len(y.first), len(x.first)), np.uint8)
    held: dict[int, FloatArray] = {}
    for k in range(z0, z1):
        a, b, weight = int(z.first[k]), int(z.second[k]), z.weight[k]
        wanted = {a, b} if weight else {a}
        held = {n: held[n] if n in held else plane(n) for n in wanted}
        values = held[a] + weight * (held[b] - held[a]) if weight else held[a]
        upper = values[y.first]
        values = upper + y.weight[:, None] * (values[y.second] - upper) if y.weight.any() else upper
        left = values[:, x.first]
        values = left + x.weight * (values[:, x.second] - left) if x.weight.any() else left
        np.greater_equal(values, np.float32(threshold), out=out[k - z0], casting="unsafe")
    return out
