"""The soft mask around a particle's axis."""

from __future__ import annotations

import torch

__all__ = ["soft_mask"]


def soft_mask(size: int, radius_voxels: float, edge_voxels: float, device: torch.device) -> torch.Tensor:
    """Make a (n, n, n) soft cylinder about z through voxel n // 2, within the sphere inscribed in the box."""
    axis = torch.arange(size, device=device, dtype=torch.float32) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    lateral = torch.hypot(y, x)

    def soft_edge(distance: torch.Tensor, radius: float) -> torch.Tensor:
        return 0.5 * (1 + torch.cos(torch.pi * ((distance - radius) / edge_voxels).clamp(0, 1)))

    # The edge of the sphere ends at the faces of the box.
    sphere = soft_edge(torch.hypot(lateral, z), max(size / 2 - 1 - edge_voxels, 1.0))
    return soft_edge(lateral, radius_voxels) * sphere
