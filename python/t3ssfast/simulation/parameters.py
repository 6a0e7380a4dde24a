"""Everything the simulator can be told, with units and bounds, and the one recipe that randomises it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from t3ssfast.errors import ConfigError

__all__ = ["Physics", "random_physics"]

Number = TypeVar("Number", int, float)


def _within(default: Number, low: float, high: float) -> Number:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Physics:
    """What is simulated and how it is imaged. Lengths in nm unless the name says otherwise.

    Densities are differences to vitreous ice, in units in which protein is 1.

    Parameters
    ----------
    cells, cell_radius_nm, cell_elongation, cell_flattening, cell_roughness
        Number of minicells; radius of the inner membrane; longest over shortest lateral axis; height over
        width (thin ice flattens cells); relative amplitude of the irregular outline.
    membrane_gap_nm
        Distance from the middle of the inner to the middle of the outer membrane.
    leaflet_distance_nm, leaflet_sigma_nm, head_density, tail_density
        A bilayer: two Gaussian layers of head groups, and the tails between them.
    membrane_half_thickness_nm
        The truth mask holds the voxels this close to the middle of a bilayer. 2 nm is the bilayer from
        head groups to head groups, as other simulators' masks have it.
    periplasm_density, cytoplasm_density, peptidoglycan_density
        Means of the smooth part of each compartment.
    crowding_fraction, outside_crowding_fraction
        Volume fraction of small globular proteins in the cytoplasm and outside of the cells.
    large_vesicles, large_vesicle_radius_nm, small_vesicles, small_vesicle_radius_nm
        Single-bilayer vesicles: large ones anywhere free, small ones near or at the cells' surface.
    t3ss_per_cell, t3ss_size_spread, t3ss_density_spread, t3ss_variety, t3ss_tilt_spread_degrees
        Injectisomes on the visible part of each cell (fewer where they do not fit); relative spread of
        their sizes, and of the densities of their parts; how far what they all are like may be from what is
        published (1: anywhere in the ranges of `particles.Architecture`); spread of their axes about the
        membrane normal.
    needle_length_nm, needle_length_spread_nm, needle_missing_fraction, platform_missing_fraction
        Needle beyond the outer membrane; fraction of injectisomes without one (bases under assembly);
        fraction without sorting platform.
    spacing_nm, edge_margin_nm
        Smallest distance between two large machines; smallest distance of a truth centre from the faces
        of the volume.
    flagellar_motors_per_cell, secretins_per_cell, docked_ribosomes_per_cell,
    inner_membrane_proteins_per_cell, outer_membrane_proteins_per_cell
        Look-alikes on the visible part of each cell.
    ribosomes_per_cubic_um, outside_proteins_per_cubic_um
        Free ribosomes in the cytoplasm; free large complexes outside.
    gold_beads, gold_diameter_nm
        Fiducials.
    carbon_film_nm
        Thickness of a carbon film with a hole's edge in view; 0 for none.
    tilt_range_degrees, tilt_step_degrees, pretilt_degrees
        Tilts from pretilt - range to pretilt + range.
    total_dose_per_square_angstrom
        Electrons, shared equally by the tilts.
    detector_efficiency, noise_scale
        Detective quantum efficiency; factor on the shot noise, 0 for none.
    mean_free_path_nm
        Of inelastic scattering in ice: thick, tilted specimens lose electrons.
    phase_per_nm
        Phase shift of the electron wave in one nm of protein against ice, in radians.
    voltage_kv, spherical_aberration_mm, amplitude_contrast, defocus_um, defocus_spread_um, b_factor
        Of the contrast transfer function; the B-factor in square Angstrom. Underfocus is positive.
    phase_flip, deconvolution
        Whether the transfer function's sign was corrected; strength of a Wiener-like filter that restores
        low frequencies at the cost of the noise's texture (Tegunov & Cramer 2019), 0 for none.
    shift_error_nm, angle_error_degrees
        Residual misalignment of each tilt.
    radial_cutoff, radial_falloff, sirt_iterations
        Of the weighted back-projection's filter, in cycles per voxel; with `sirt_iterations` > 0 the
        weighting resembles that many iterations of SIRT.
    intensity_ramp, corner_darkening
        Slow additive changes of the reconstruction, in its standard deviations.
    """

    cells: int = _within(1, 0, 20)
    cell_radius_nm: float = _within(180.0, 60, 2000)
    cell_elongation: float = _within(1.2, 1, 4)
    cell_flattening: float = _within(0.6, 0.1, 2)
    cell_roughness: float = _within(0.05, 0, 0.2)
    membrane_gap_nm: float = _within(27.0, 20, 40)
    leaflet_distance_nm: float = _within(4.0, 2, 6)
    leaflet_sigma_nm: float = _within(0.9, 0.3, 3)
    head_density: float = _within(0.9, 0, 3)
    tail_density: float = _within(0.1, -1, 3)
    membrane_half_thickness_nm: float = _within(2.0, 0.5, 10)
    periplasm_density: float = _within(0.08, 0, 1)
    cytoplasm_density: float = _within(0.12, 0, 1)
    peptidoglycan_density: float = _within(0.15, 0, 1)
    crowding_fraction: float = _within(0.12, 0, 0.5)
    outside_crowding_fraction: float = _within(0.003, 0, 0.5)
    large_vesicles: int = _within(0, 0, 100)
    large_vesicle_radius_nm: float = _within(120.0, 20, 2000)
    small_vesicles: int = _within(2, 0, 1000)
    small_vesicle_radius_nm: float = _within(25.0, 8, 200)
    t3ss_per_cell: int = _within(10, 0, 1000)
    t3ss_size_spread: float = _within(0.04, 0, 0.2)
    t3ss_density_spread: float = _within(0.0, 0, 0.5)
    t3ss_variety: float = _within(0.0, 0, 1)
    t3ss_tilt_spread_degrees: float = _within(4.0, 0, 30)
    needle_length_nm: float = _within(55.0, 0, 200)
    needle_length_spread_nm: float = _within(8.0, 0, 50)
    needle_missing_fraction: float = _within(0.1, 0, 1)
    platform_missing_fraction: float = _within(0.1, 0, 1)
    spacing_nm: float = _within(45.0, 20, 500)
    edge_margin_nm: float = _within(10.0, 0, 200)
    flagellar_motors_per_cell: int = _within(1, 0, 100)
    secretins_per_cell: int = _within(2, 0, 1000)
    docked_ribosomes_per_cell: int = _within(6, 0, 1000)
    inner_membrane_proteins_per_cell: int = _within(40, 0, 10000)
    outer_membrane_proteins_per_cell: int = _within(40, 0, 10000)
    ribosomes_per_cubic_um: float = _within(5000.0, 0, 50000)
    outside_proteins_per_cubic_um: float = _within(200.0, 0, 50000)
    gold_beads: int = _within(4, 0, 1000)
    gold_diameter_nm: float = _within(10.0, 2, 30)
    carbon_film_nm: float = _within(0.0, 0, 100)
    tilt_range_degrees: float = _within(60.0, 5, 90)
    tilt_step_degrees: float = _within(3.0, 0.5, 20)
    pretilt_degrees: float = _within(0.0, -30, 30)
    total_dose_per_square_angstrom: float = _within(110.0, 1, 10000)
    detector_efficiency: float = _within(0.8, 0.01, 1)
    noise_scale: float = _within(1.0, 0, 100)
    mean_free_path_nm: float = _within(320.0, 50, 10000)
    phase_per_nm: float = _within(0.017, 0, 0.1)
    voltage_kv: float = _within(300.0, 60, 1000)
    spherical_aberration_mm: float = _within(2.7, 0, 10)
    amplitude_contrast: float = _within(0.08, 0, 1)
    defocus_um: float = _within(6.0, 0, 30)
    defocus_spread_um: float = _within(0.2, 0, 5)
    b_factor: float = _within(600.0, 0, 100000)
    phase_flip: bool = False
    deconvolution: float = _within(0.0, 0, 2)
    shift_error_nm: float = _within(0.8, 0, 20)
    angle_error_degrees: float = _within(0.1, 0, 5)
    radial_cutoff: float = _within(0.4, 0.05, 0.5)
    radial_falloff: float = _within(0.05, 0.001, 0.5)
    sirt_iterations: int = _within(0, 0, 1000)
    intensity_ramp: float = _within(0.2, 0, 10)
    corner_darkening: float = _within(0.2, 0, 10)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, bool):
                if not isinstance(value, (bool, np.bool_)):
                    raise ConfigError(f"{item.name} is {value!r}; give True or False.")
                object.__setattr__(self, item.name, bool(value))
                continue
            low, high = item.metadata["low"], item.metadata["high"]
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = float("nan")
            whole = isinstance(item.default, int)
            if not low <= number <= high or (whole and number != int(number)):
                wanted = "a whole number" if whole else "a number"
                raise ConfigError(f"{item.name} is {value!r}; give {wanted} from {low:g} to {high:g}.")
            object.__setattr__(self, item.name, int(number) if whole else number)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Physics:
        """The defaults, changed by `values`.

        Raises
        ------
        ConfigError
            For a name that is not a field, or a value out of bounds.
        """
        known = {item.name for item in fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"simulate has no parameter {name!r}; give some of {', '.join(sorted(known))}."
                )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Field names and values."""
        return asdict(self)


def random_physics(rng: np.random.Generator | int, *, widen: float = 0.0, **fixed: Any) -> Physics:
    """Draw one tomogram's parameters from the ranges that the bundled models are trained on.

    Three in four tomograms show cells with T3SS, one in ten cells without, the others only vesicles, so
    that double membranes alone, or single bilayers, are no evidence of a T3SS.

    Parameters
    ----------
    rng
        Generator, or a seed for one.
    widen
        By which share of its width every range grows, half of it at each end and never beyond what `Physics`
        allows: for tomograms that the models have not been trained on.
    **fixed
        Fields of `Physics` that are not drawn.

    Raises
    ------
    ConfigError
        If `fixed` holds an unknown field or a value out of bounds, or `widen` is no share from 0 to 2.
    """
    if not 0 <= widen <= 2:
        raise ConfigError(f"widen is {widen!r}; give a share from 0 to 2.")
    rng = np.random.default_rng(rng)
    bounds = {item.name: item.metadata for item in fields(Physics) if "low" in item.metadata}

    def stretched(low: float, high: float) -> tuple[float, float]:
        more = widen * (high - low) / 2
        return low - more, high + more

    def between(low: float, high: float) -> float:
        return float(rng.uniform(*stretched(low, high)))

    def count(low: int, high: int) -> int:
        first, last = stretched(low, high)
        return max(int(rng.integers(round(first), round(last) + 1)), 0)

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    kind = rng.choice(["t3ss", "bare", "vesicles"], p=[0.75, 0.10, 0.15])
    cells = 0 if kind == "vesicles" else max(1, count(1, 3))
    weighting = rng.choice(["plain", "sirt", "deconvolved"], p=[0.6, 0.22, 0.18])
    drawn: dict[str, Any] = {
        "cells": cells,
        "cell_radius_nm": between(120, 300),
        "cell_elongation": between(1.0, 1.8),
        "cell_flattening": between(0.35, 1.0),
        "cell_roughness": between(0.0, 0.08),
        "membrane_gap_nm": between(24, 30),
        "leaflet_distance_nm": between(3.6, 5.0),
        "leaflet_sigma_nm": between(0.7, 1.2),
        "head_density": between(0.7, 1.1),
        "tail_density": between(-0.1, 0.2),
        "periplasm_density": between(0.02, 0.15),
        "cytoplasm_density": between(0.05, 0.2),
        "peptidoglycan_density": between(0.0, 0.3),
        "crowding_fraction": between(0.03, 0.2),
        "outside_crowding_fraction": between(0.0, 0.01),
        "large_vesicles": max(1, count(1, 4)) if kind == "vesicles" else count(0, 1),
        "large_vesicle_radius_nm": between(60, 300),
        "small_vesicles": count(0, 6),
        "small_vesicle_radius_nm": between(15, 40),
        "t3ss_per_cell": max(1, count(3, 15)) if kind == "t3ss" else 0,
        "t3ss_size_spread": between(0.02, 0.1),
        "t3ss_tilt_spread_degrees": between(1, 6),
        "needle_length_nm": between(40, 80),
        "needle_length_spread_nm": between(3, 12),
        "needle_missing_fraction": between(0.0, 0.3),
        "platform_missing_fraction": between(0.0, 0.3),
        "flagellar_motors_per_cell": count(0, 3),
        "secretins_per_cell": count(0, 6),
        "docked_ribosomes_per_cell": count(0, 15),
        "inner_membrane_proteins_per_cell": count(0, 80),
        "outer_membrane_proteins_per_cell": count(0, 80),
        "ribosomes_per_cubic_um": between(500, 10000),
        "outside_proteins_per_cubic_um": between(0, 1000),
        "gold_beads": count(0, 12),
        "gold_diameter_nm": float(rng.choice([5.0, 6.0, 10.0, 15.0])),
        "carbon_film_nm": between(8, 20) if chance(0.12) else 0.0,
        "tilt_range_degrees": between(42, 66),
        "tilt_step_degrees": float(rng.choice([2.0, 3.0, 4.0], p=[0.4, 0.5, 0.1])),
        "pretilt_degrees": between(-6, 6),
        "total_dose_per_square_angstrom": between(60, 150),
        "detector_efficiency": between(0.6, 0.9),
        "noise_scale": float(np.exp(between(np.log(0.4), np.log(1.7)))),
        "mean_free_path_nm": between(250, 400),
        "phase_per_nm": between(0.014, 0.020),
        "amplitude_contrast": between(0.06, 0.12),
        "defocus_um": between(2.5, 9),
        "defocus_spread_um": between(0.0, 0.5),
        "b_factor": between(100, 2000),
        "phase_flip": chance(0.4),
        "deconvolution": between(0.3, 0.8) if weighting == "deconvolved" else 0.0,
        "shift_error_nm": between(0.0, 1.5),
        "angle_error_degrees": between(0.0, 0.3),
        "radial_cutoff": between(0.3, 0.5),
        "radial_falloff": between(0.03, 0.08),
        "sirt_iterations": count(5, 30) if weighting == "sirt" else 0,
        "intensity_ramp": between(0.0, 0.6),
        "corner_darkening": between(0.0, 0.6),
        "t3ss_density_spread": between(0.0, 0.3),
        "t3ss_variety": between(0.0, 1.0),
    }
    for name, limit in bounds.items():
        if name in drawn:
            drawn[name] = min(max(drawn[name], limit["low"]), limit["high"])
    return Physics.from_dict(drawn | fixed)
