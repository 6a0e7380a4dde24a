"""Interpolation between the voxels of a tomogram and the grid of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

__all__ = [
    "Axis",
    "FloatArray",
    "LinearInterpolation",
    "interpolate_slices",
    "resample_mask",
    "resample_slice",
]

FloatArray = npt.NDArray[np.float32]


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Evaluate the cubic convolution kernel with a = -1/2 (Keys 1981, eq. 15), support +-2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class Axis:
    """One axis of the model's grid over the same axis of the tomogram.

    Grid point i lies at ``i * step + origin`` voxels of the tomogram. Both grids have the same centre.
    """

    length: int
    size: int
    step: float
    origin: float
    # Voxels and weights that make up each grid point, (size, taps); beyond the edge the edge voxel repeats.
    taps: npt.NDArray[np.int64]
    weights: FloatArray

    @classmethod
    def make(cls, length: int, step: float) -> Axis:
        """Lay a grid over `length` voxels, with `step` voxels between its points."""
        size = max(1, round(length / step))
        origin = (length - 1) / 2 - step * (size - 1) / 2
        if step == 1.0:
            return cls(length, size, step, origin, np.arange(size)[:, None], np.ones((size, 1), np.float32))
        # On a coarser grid the kernel is widened by the step, as an anti-aliasing filter.
        width = max(1.0, step)
        reach = math.ceil(2 * width)
        position = np.arange(size) * step + origin
        taps = np.floor(position).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
        weights = _cubic((taps - position[:, None]) / width)
        weights /= weights.sum(axis=1, keepdims=True)
        return cls(length, size, step, origin, np.clip(taps, 0, length - 1), weights.astype(np.float32))

    def weights_of(self, point: int) -> dict[int, float]:
        """Return the non-zero weight of each voxel that contributes to a grid point."""
        weights: dict[int, float] = {}
        for tap, weight in zip(self.taps[point].tolist(), self.weights[point].tolist(), strict=True):
            weights[tap] = weights.get(tap, 0.0) + weight
        return {tap: weight for tap, weight in weights.items() if weight != 0}

    def matrix(self) -> sparse.csr_array:
        """Return the (size, length) weights as a sparse matrix."""
        index = np.repeat(np.arange(self.size), self.taps.shape[1]), self.taps.ravel()
        return sparse.csr_array((self.weights.ravel(), index), shape=(self.size, self.length))

    def to_grid(self) -> LinearInterpolation:
        """Interpolate linearly between voxels of the tomogram, at the grid points."""
        return LinearInterpolation.make(np.arange(self.size) * self.step + self.origin, self.length)

    def to_tomogram(self) -> LinearInterpolation:
        """Interpolate linearly between grid points, at the voxels of the tomogram."""
        return LinearInterpolation.make((np.arange(self.length) - self.origin) / self.step, self.size)


@dataclass(frozen=True)
class LinearInterpolation:
    """Positions on an axis as the indices of two neighbours and the weight of the second."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: FloatArray

    @classmethod
    def make(cls, position: npt.NDArray[np.floating[Any]], length: int) -> LinearInterpolation:
        """Interpolate at `position`, clamped to an axis of `length` samples."""
        # Rounding errors must not turn a whole position into a weighted mean.
        inside = np.clip(np.round(position, 9), 0, length - 1)
        first = np.floor(inside).astype(np.int64)
        return cls(first, np.minimum(first + 1, length - 1), (inside - first).astype(np.float32))


def resample_slice(image: Tensor, rows: Any, columns: Any) -> Tensor:
    """Apply weight matrices, SciPy's sparse ones or tensors, along y and x of a float32 slice."""
    if isinstance(rows, Tensor):
        dense: Tensor = rows @ image.to(rows.dtype) @ columns.T
        return dense.to(torch.float32)
    by_columns = columns @ np.ascontiguousarray((rows @ image.numpy()).T)
    return torch.from_numpy(np.ascontiguousarray(by_columns.T, dtype=np.float32))


def resample_mask(
    read: Callable[[int], FloatArray], axes: Iterable[LinearInterpolation], z0: int, z1: int, threshold: float
) -> npt.NDArray[np.uint8]:
    """Interpolate slices z0 to z1 linearly along z, y and x, and set values from a threshold on to 1.

    Nearest neighbours would shift faces by up to half a voxel: a tenth of the overlap of a thin membrane.
    """
    z, y, x = axes
    out = np.empty((z1 - z0, len(y.first), len(x.first)), np.uint8)
    for image, values in zip(out, interpolate_slices(read, (z, y, x), z0, z1), strict=True):
        np.greater_equal(values, np.float32(threshold), out=image, casting="unsafe")
    return out


def interpolate_slices(
    read: Callable[[int], FloatArray], axes: Iterable[LinearInterpolation], z0: int, z1: int
) -> Iterator[FloatArray]:
    """Yield slices z0 to z1 interpolated linearly along z, y and x."""
    z, y, x = axes
    slices: dict[int, FloatArray] = {}
    for k in range(z0, z1):
        a, b, weight = int(z.first[k]), int(z.second[k]), z.weight[k]
        needed = {a, b} if weight else {a}
        slices = {n: slices[n] if n in slices else read(n) for n in needed}
        values = slices[a] + weight * (slices[b] - slices[a]) if weight else slices[a]
        upper = values[y.first]
        values = upper + y.weight[:, None] * (values[y.second] - upper) if y.weight.any() else upper
        left = values[:, x.first]
        yield left + x.weight * (values[:, x.second] - left) if x.weight.any() else left
