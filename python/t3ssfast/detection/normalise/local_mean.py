"""The local mean of a slice, by regression between the means of blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["LocalMean"]


class LocalMean(NamedTuple):
    """Gaussian-weighted local linear regression of a slice (Cleveland 1979).

    Unlike a Gaussian blur it reproduces an intensity ramp exactly, up to the edge of the slice.
    """

    # (blocks, length) block means, and (length, blocks) weights of a regression between the blocks.
    mean_y: Tensor
    fit_y: Tensor
    mean_x: Tensor
    fit_x: Tensor

    @classmethod
    def make(cls, shape_yx: tuple[int, int], sigma: float) -> LocalMean:
        """Prepare the matrices for slices of a shape; `sigma` is that of the Gaussian, in pixels."""
        return cls(*(matrix for length in shape_yx for matrix in _regression_matrices(length, sigma)))

    def to(self, device: torch.device, dtype: torch.dtype) -> LocalMean:
        """Copy the matrices to a device, in another precision."""
        return LocalMean(*(matrix.to(device, dtype) for matrix in self))

    def __call__(self, image: Tensor) -> Tensor:
        """Return the local mean of a (y, x) slice, computed in the precision of the matrices."""
        blocks = (self.mean_y @ image.to(self.mean_y.dtype)) @ self.mean_x.T
        return ((self.fit_y @ blocks) @ self.fit_x.T).to(image.dtype)


def _regression_matrices(length: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return float32 matrices whose product is the local linear regression along one axis."""
    # A Gaussian of width sigma passes nothing that means over blocks of half a sigma remove.
    count = max(1, round(length / max(1.0, sigma / 2)))
    edges = np.linspace(0, length, count + 1).round().astype(int)
    means = np.zeros((count, length))
    for k, (a, b) in enumerate(pairwise(edges.tolist())):
        means[k, a:b] = 1.0 / (b - a)
    centre = (edges[:-1] + edges[1:] - 1) / 2
    offset = centre[None, :] - np.arange(length)[:, None]
    weight = np.exp(-0.5 * (offset / sigma) ** 2) * np.diff(edges)
    s0, s1, s2 = (np.sum(weight * offset**k, axis=1, keepdims=True) for k in range(3))
    determinant = s0 * s2 - s1**2
    # With all the weight in one block no slope can be fitted: take the mean.
    flat = determinant <= 1e-9 * s0**2
    fit = weight * np.where(flat, 1.0, s2 - s1 * offset) / np.where(flat, s0, determinant)
    # `torch.tensor` copies into memory that PyTorch aligns.
    return torch.tensor(means, dtype=torch.float32), torch.tensor(fit, dtype=torch.float32)
