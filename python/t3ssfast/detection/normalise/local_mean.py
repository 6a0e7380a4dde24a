"""The local mean of a slice, which is subtracted from it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["Smoothers", "local_mean", "moved", "smoother"]

# Of y and of x: see `smoother`.
Smoothers = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def smoother(length: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Matrices (blocks, length) and (length, blocks) whose product is a local linear Gaussian smoother.

    Local linear regression (Cleveland 1979) instead of a plain local mean: an intensity ramp is reproduced
    exactly up to the very edge. Block means of half a sigma lose nothing that so wide a Gaussian would keep.
    """
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
    # One block, or all of them in one place: there is no slope to fit, and the mean is all there is.
    flat = determinant <= 1e-9 * s0**2
    local = weight * np.where(flat, 1.0, s2 - s1 * offset) / np.where(flat, s0, determinant)
    # Copies, in memory that PyTorch aligns.
    return torch.tensor(means, dtype=torch.float32), torch.tensor(local, dtype=torch.float32)


def moved(smooth: Smoothers | None, device: torch.device, kind: torch.dtype) -> Smoothers | None:
    """Smoothers on another device, in another precision."""
    if smooth is None:
        return None
    (mean_y, local_y), (mean_x, local_x) = smooth
    return (mean_y.to(device, kind), local_y.to(device, kind)), (
        mean_x.to(device, kind),
        local_x.to(device, kind),
    )


def local_mean(image: Tensor, smooth: Smoothers) -> Tensor:
    """Both axes smoothed, in the precision of the smoothers."""
    (mean_y, local_y), (mean_x, local_x) = smooth
    blocks = (mean_y @ image.to(mean_y.dtype)) @ mean_x.T
    return ((local_y @ blocks) @ local_x.T).to(image.dtype)
