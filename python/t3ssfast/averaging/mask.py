"""The soft mask about a particle's axis."""

from __future__ import annotations

import torch

__all__ = ["soft_mask"]


def soft_mask(size: int, radius_voxels: float, edge_voxels: float, device: torch.device) -> torch.Tensor:
    """(n, n, n) cylinder about z through voxel n // 2, within the sphere that the box holds, 1 to 0.

    The edge is half a cosine wave, `edge_voxels` wide, outwards of `radius_voxels`; that of the sphere ends
    at the box's faces.
    """
    axis = torch.arange(size, device=device, dtype=torch.float32) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    lateral = torch.hypot(y, x)
    distance = torch.hypot(lateral, z)
    ball = max(size / 2 - 1 - edge_voxels, 1.0)
    return _falling(lateral, radius_voxels, edge_voxels) * _falling(distance, ball, edge_voxels)


def _falling(distance: torch.Tensor, radius: float, edge: float) -> torch.Tensor:
    return 0.5 * (1 + torch.cos(torch.pi * ((distance - radius) / edge).clamp(0, 1)))
