"""Options of subtomogram averaging and their defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from t3ssfast.averaging.extract import CONTRASTS
from t3ssfast.averaging.missing_wedge import check_tilt_range
from t3ssfast.candidates import T3SS
from t3ssfast.errors import ConfigError

__all__ = ["AverageConfig"]


@dataclass(frozen=True)
class AverageConfig:
    """Options of `average`. The unit of a length or an angle is part of its name.

    Parameters
    ----------
    iterations
        Number of alignment and averaging iterations.
    initial_resolution_angstrom
        Low-pass filter of the first reference, and of the half maps when they are aligned to each other. The
        half sets share everything coarser, so no resolution at or below it is claimed.
    angular_step_degrees, finest_step_degrees
        Angular step of the search in the first iteration. It shrinks by a fifth per iteration, down to
        `finest_step_degrees`.
    refinements
        Number of times that the angular step is halved around the best rotation of a search.
    cone_degrees
        Maximum tilt of a particle's axis from its initial normal. Rotations about the axis are searched in
        full.
    max_shift_nm
        Maximum shift from the initial position along each axis.
    tilt_range_degrees
        Lowest and highest angle of the tilt series, about y. They define the missing wedge.
    contrast
        Contrast of protein in the tomograms: "dark", "light", or "auto", which finds it as a detection
        does; or a tuple with that of each.
    mask_radius_nm, mask_edge_nm
        Radius and soft edge of the cylindrical mask about the particle's axis.
    finest_alignment_voxels
        Finest resolution used for the alignment, in voxels.
    kind
        Kind of the candidates that are averaged. "t3ss": all that are not flagellar motors, since the class
        labels of other programs say nothing about the kind; "all": of every kind.
    reject_outliers
        Exclude particles with outlying scores from the averages, from the third iteration on.
    reject_other_kinds
        Exclude particles that the bundled verifier takes for another kind, where it knows the kind that is
        averaged: flagellar motors among T3SS.
    b_factor
        B-factor in square Angstrom for sharpening the final map; None: no sharpening.
    seed
        Random seed of the split into half sets.
    memory_budget_bytes
        Memory for extracted subtomograms. Those beyond are extracted again whenever they are needed.
    threads
        Number of particles processed in parallel on a CPU; None: PyTorch's number of threads. Results are
        bit-identical for any number.
    """

    iterations: int = 5
    initial_resolution_angstrom: float = 110.0
    angular_step_degrees: float = 15.0
    finest_step_degrees: float = 8.0
    refinements: int = 2
    cone_degrees: float = 15.0
    max_shift_nm: float = 6.0
    tilt_range_degrees: tuple[float, float] = (-60.0, 60.0)
    contrast: str | tuple[str, ...] = "dark"
    mask_radius_nm: float = 24.0
    mask_edge_nm: float = 5.0
    finest_alignment_voxels: float = 5.0
    kind: str = T3SS
    reject_outliers: bool = True
    reject_other_kinds: bool = True
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
            require(0 < getattr(self, name) < np.inf, name, "a finite number above 0")
        for name in ("angular_step_degrees", "finest_step_degrees"):
            require(1 <= getattr(self, name) <= 60, name, "1 to 60 degrees")
        require(0 <= self.refinements <= 6, "refinements", "0 to 6")
        require(0 <= self.cone_degrees <= 180, "cone_degrees", "0 to 180 degrees")
        require(0 <= self.max_shift_nm <= 1000, "max_shift_nm", "0 to 1000 nm")
        contrasts = (self.contrast,) if isinstance(self.contrast, str) else tuple(self.contrast)
        require(
            set(contrasts) <= set(CONTRASTS),
            "contrast",
            '"dark", "light" or "auto", or one for each tomogram',
        )
        if not isinstance(self.contrast, str):
            object.__setattr__(self, "contrast", contrasts)
        require(self.finest_alignment_voxels >= 2, "finest_alignment_voxels", "2 or more")
        ok = self.b_factor is None or 0 <= self.b_factor < np.inf
        require(ok, "b_factor", "None, or 0 or more square Angstrom")
        for name in ("seed", "memory_budget_bytes"):
            require(getattr(self, name) >= 0, name, "0 or more")
        require(self.threads is None or self.threads >= 1, "threads", "None, or 1 or more")
        object.__setattr__(self, "tilt_range_degrees", check_tilt_range(self.tilt_range_degrees))

    def to_dict(self) -> dict[str, Any]:
        """Return field names and values."""
        return asdict(self)
