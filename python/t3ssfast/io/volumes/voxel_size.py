"""One voxel size from those that a header gives for three axes."""

from __future__ import annotations

from t3ssfast.errors import VoxelSizeError
from t3ssfast.tomogram import check_voxel_size

__all__ = ["PLACEHOLDER_VOXEL_SIZE_ANGSTROM", "isotropic_voxel_size"]

# A larger difference between the axes would bend distances and angles visibly.
MAX_ANISOTROPY = 0.01
# MRC files of programs that know no voxel size carry 1 A; no tomogram is reconstructed at 1 A.
PLACEHOLDER_VOXEL_SIZE_ANGSTROM = 1.0


def isotropic_voxel_size(sizes: tuple[float, ...], *, source: str) -> float:
    """One voxel size from those of the three axes.

    Raises
    ------
    VoxelSizeError
        If one is unusable, is the placeholder 1 A, or they differ by more than 1%.
    """
    values = [check_voxel_size(size, source=source) for size in sizes]
    if max(values) > min(values) * (1 + MAX_ANISOTROPY):
        listed = ", ".join(f"{value:.4g}" for value in values)
        raise VoxelSizeError(
            f"{source}: the voxel sizes along x, y, z differ ({listed} Angstrom); resample to cubic voxels, "
            "or give voxel_size_angstrom (--voxel-size) if the header is wrong."
        )
    size = round(sorted(values)[1], 5)  # float32 in the header: 13.6000004 is 13.6
    if abs(size - PLACEHOLDER_VOXEL_SIZE_ANGSTROM) < 1e-4:
        raise VoxelSizeError(
            f"{source}: the voxel size in the header is 1 Angstrom, which programs write when they do not "
            "know it; give it as voxel_size_angstrom (--voxel-size)."
        )
    return size
