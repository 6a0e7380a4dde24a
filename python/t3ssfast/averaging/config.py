"""Every default of an averaging, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from t3ssfast.averaging.extract import check_tilt_range
from t3ssfast.errors import ConfigError

__all__ = ["AverageConfig"]


@dataclass(frozen=True)
class AverageConfig:
    """Every default of an averaging. Lengths in the unit of the name.

    Parameters
    ----------
    iterations
        Rounds of alignment and averaging.
    initial_resolution_angstrom
        Low-pass of the first reference, and of the maps by which the two halves are brought into one frame.
        What is coarser is shared by the halves: no resolution at or below it is claimed.
    angular_step_degrees, finest_step_degrees
        Spacing of the searched rotations in the first iteration; it shrinks by a fifth an iteration, to the
        second. Each search ends with `refinements` halvings of the step about the best rotation.
    refinements
        See there.
    cone_degrees
        How far a particle's axis may leave the normal it came with. Turns about the axis are searched in
        full.
    max_shift_nm
        How far a particle may move from where it was, along each axis.
    tilt_range_degrees
        Lowest and highest tilt of the tilt series, about y: what is outside was not measured.
    contrast
        Protein in the tomograms: "dark" or "light".
    mask_radius_nm, mask_edge_nm
        Soft cylinder about the axis, within the sphere that the box holds; width of its edge.
    finest_alignment_voxels
        No feature smaller than this steers the alignment, however far the halves agree.
    weed
        Whether particles whose score sets them apart from the others are left out of the averages, from
        the third iteration on.
    b_factor
        Square Angstrom by which the final map is sharpened; None: not at all.
    seed
        Of the split into halves.
    memory_budget_bytes
        Boxes are kept in memory up to this; beyond, they are cut anew from the tomograms when needed.
    threads
        Particles that are worked on side by side on a CPU; None: as many as PyTorch has threads. The answer
        does not depend on it, bit for bit.
    """

    iterations: int = 5
    initial_resolution_angstrom: float = 110.0
    angular_step_degrees: float = 15.0
    finest_step_degrees: float = 8.0
    refinements: int = 2
    cone_degrees: float = 15.0
    max_shift_nm: float = 6.0
    tilt_range_degrees: tuple[float, float] = (-60.0, 60.0)
    contrast: str = "dark"
    mask_radius_nm: float = 24.0
    mask_edge_nm: float = 5.0
    finest_alignment_voxels: float = 5.0
    weed: bool = True
    b_factor: float | None = None
    seed: int = 0
    memory_budget_bytes: int = 2 << 30
    threads: int | None = None

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, wanted: str) -> None:
            if not ok:
                raise ConfigError(f"AverageConfig.{name} is {getattr(self, name)!r}; give {wanted}.")

        require(1 <= self.iterations <= 100, "iterations", "1 to 100")
        for name in ("initial_resolution_angstrom", "mask_radius_nm", "mask_edge_nm"):
            value = getattr(self, name)
            require(np.isfinite(value) and value > 0, name, "a finite number above 0")
        for name in ("angular_step_degrees", "finest_step_degrees"):
            require(1 <= getattr(self, name) <= 60, name, "1 to 60 degrees")
        require(0 <= self.refinements <= 6, "refinements", "0 to 6")
        require(0 <= self.cone_degrees <= 180, "cone_degrees", "0 to 180 degrees")
        require(0 <= self.max_shift_nm <= 1000, "max_shift_nm", "0 to 1000 nm")
        require(self.contrast in ("dark", "light"), "contrast", '"dark" or "light"')
        require(self.finest_alignment_voxels >= 2, "finest_alignment_voxels", "2 or more")
        ok = self.b_factor is None or (np.isfinite(self.b_factor) and self.b_factor >= 0)
        require(ok, "b_factor", "None, or 0 or more square Angstrom")
        require(self.seed >= 0, "seed", "0 or more")
        require(self.memory_budget_bytes >= 0, "memory_budget_bytes", "0 or more")
        require(self.threads is None or self.threads >= 1, "threads", "None, or 1 or more")
        object.__setattr__(self, "tilt_range_degrees", check_tilt_range(self.tilt_range_degrees))

    def to_dict(self) -> dict[str, Any]:
        """Field names and values."""
        return asdict(self)

    def step_degrees(self, iteration: int) -> float:
        """Spacing of the rotations searched in an iteration, from 0."""
        return max(self.finest_step_degrees, self.angular_step_degrees * 0.8**iteration)
