"""Parameters of the simulation: defaults, bounds, and the ranges from which training tomograms are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from t3ssfast.errors import ConfigError

__all__ = ["Physics", "other_microscopes", "random_physics"]

Number = TypeVar("Number", int, float)

# Fields that `random_physics` draws after all others.
DRAWN_LAST = ("t3ss_density_spread", "t3ss_variety", "motor_variety")


def _bounded(default: Number, low: float, high: float, *, draw: tuple[float, float] | None = None) -> Number:
    """Declare a field with its bounds, and the range from which `random_physics` draws it."""
    return field(default=default, metadata={"low": low, "high": high, "draw": draw})


@dataclass(frozen=True)
class Physics:
    """Parameters of the specimen and of its imaging. Lengths are in nm unless the name says otherwise.

    Densities are relative to vitreous ice, in units of protein.

    Parameters
    ----------
    cells, cell_radius_nm, cell_elongation, cell_flattening, cell_roughness
        Number of minicells; radius of the inner membrane; longest over shortest lateral axis; height over
        width (thin ice flattens cells); relative amplitude of the irregular outline.
    membrane_gap_nm
        Distance between the middles of the inner and outer membranes.
    leaflet_distance_nm, leaflet_sigma_nm, head_density, tail_density
        Bilayer: two Gaussian layers of head groups, and the tails between them.
    membrane_half_thickness_nm
        Half thickness of a bilayer in the membrane mask. The default covers the head groups of both leaflets.
    periplasm_density, cytoplasm_density, peptidoglycan_density
        Mean density of the smooth part of each compartment.
    crowding_fraction, outside_crowding_fraction
        Volume fraction of small globular proteins in the cytoplasm and outside of the cells.
    large_vesicles, large_vesicle_radius_nm, small_vesicles, small_vesicle_radius_nm
        Vesicles with one bilayer: large ones anywhere, small ones mostly near cell surfaces.
    t3ss_per_cell, t3ss_size_spread, t3ss_density_spread, t3ss_variety, t3ss_tilt_spread_degrees
        T3SS on the visible part of each cell, fewer if they do not fit; relative standard deviation of their
        sizes, and of the densities of their parts; deviation of the species from the published architecture
        (1: anywhere in the ranges of `Architecture`); standard deviation of the axes about the normal.
    needle_length_nm, needle_length_spread_nm, needle_missing_fraction, platform_missing_fraction
        Needle beyond the outer membrane; fraction of T3SS without needle, and without sorting platform.
    spacing_nm, edge_margin_nm
        Minimum distance between two large complexes; minimum distance of a T3SS centre from the faces of the
        volume.
    motor_variety
        Deviation of the species' flagellar motor from the published architecture (1: anywhere in the ranges
        of `MotorArchitecture`, with or without stators, hook and sheath).
    flagellar_motors_per_cell, secretins_per_cell, docked_ribosomes_per_cell,
    inner_membrane_proteins_per_cell, outer_membrane_proteins_per_cell
        Look-alikes on the visible part of each cell.
    ribosomes_per_cubic_um, outside_proteins_per_cubic_um
        Free ribosomes in the cytoplasm; free large complexes outside.
    gold_beads, gold_diameter_nm
        Fiducials.
    carbon_film_nm
        Thickness of a carbon film with the edge of a hole in view; 0: no film.
    tilt_range_degrees, tilt_step_degrees, pretilt_degrees
        Tilts from pretilt - range to pretilt + range.
    total_dose_per_square_angstrom
        Electrons, distributed equally over the tilts.
    detector_efficiency, noise_scale
        Detective quantum efficiency; factor on the shot noise, 0: no noise.
    mean_free_path_nm
        Mean free path of inelastic scattering in ice, by which thick, tilted specimens lose electrons.
    phase_per_nm
        Phase shift of the electron wave by 1 nm of protein relative to ice, in radians.
    ice_thickness_nm
        Thickness of the ice by which electrons are lost; 0: that of the volume.
    voltage_kv, spherical_aberration_mm, amplitude_contrast, defocus_um, defocus_spread_um, b_factor
        Contrast transfer function. The B-factor is in square Angstrom; underfocus is positive.
    phase_shift_pi
        Phase shift of a phase plate, as a fraction of pi.
    phase_flip, deconvolution
        Whether the sign of the contrast transfer function is corrected; strength of a Wiener-like filter that
        restores low frequencies (Tegunov & Cramer 2019), 0: no filter.
    shift_error_nm, angle_error_degrees
        Standard deviation of the residual misalignment of each tilt.
    radial_cutoff, radial_falloff, sirt_iterations
        Filter of the weighted back-projection, in cycles per voxel. `sirt_iterations` > 0 approximates the
        weighting of that many SIRT iterations.
    intensity_ramp, corner_darkening
        Slow additive intensity changes, in standard deviations of the reconstruction.
    """

    cells: int = _bounded(1, 0, 20)
    cell_radius_nm: float = _bounded(180.0, 60, 2000, draw=(120, 300))
    cell_elongation: float = _bounded(1.2, 1, 4, draw=(1.0, 1.8))
    cell_flattening: float = _bounded(0.6, 0.1, 2, draw=(0.35, 1.0))
    cell_roughness: float = _bounded(0.05, 0, 0.2, draw=(0.0, 0.08))
    membrane_gap_nm: float = _bounded(27.0, 20, 40, draw=(24, 30))
    leaflet_distance_nm: float = _bounded(4.0, 2, 6, draw=(3.6, 5.0))
    leaflet_sigma_nm: float = _bounded(0.9, 0.3, 3, draw=(0.7, 1.2))
    head_density: float = _bounded(0.9, 0, 3, draw=(0.7, 1.1))
    tail_density: float = _bounded(0.1, -1, 3, draw=(-0.1, 0.2))
    membrane_half_thickness_nm: float = _bounded(2.0, 0.5, 10)
    periplasm_density: float = _bounded(0.08, 0, 1, draw=(0.02, 0.15))
    cytoplasm_density: float = _bounded(0.12, 0, 1, draw=(0.05, 0.2))
    peptidoglycan_density: float = _bounded(0.15, 0, 1, draw=(0.0, 0.3))
    crowding_fraction: float = _bounded(0.12, 0, 0.5, draw=(0.03, 0.2))
    outside_crowding_fraction: float = _bounded(0.003, 0, 0.5, draw=(0.0, 0.01))
    large_vesicles: int = _bounded(0, 0, 100)
    large_vesicle_radius_nm: float = _bounded(120.0, 20, 2000, draw=(60, 300))
    small_vesicles: int = _bounded(2, 0, 1000, draw=(0, 6))
    small_vesicle_radius_nm: float = _bounded(25.0, 8, 200, draw=(15, 40))
    t3ss_per_cell: int = _bounded(10, 0, 1000)
    t3ss_size_spread: float = _bounded(0.04, 0, 0.2, draw=(0.02, 0.1))
    t3ss_density_spread: float = _bounded(0.0, 0, 0.5, draw=(0.0, 0.3))
    t3ss_variety: float = _bounded(0.0, 0, 1, draw=(0.0, 1.0))
    t3ss_tilt_spread_degrees: float = _bounded(4.0, 0, 30, draw=(1, 6))
    needle_length_nm: float = _bounded(55.0, 0, 200, draw=(40, 80))
    needle_length_spread_nm: float = _bounded(8.0, 0, 50, draw=(3, 12))
    needle_missing_fraction: float = _bounded(0.1, 0, 1, draw=(0.0, 0.3))
    platform_missing_fraction: float = _bounded(0.1, 0, 1, draw=(0.0, 0.3))
    spacing_nm: float = _bounded(45.0, 20, 500)
    edge_margin_nm: float = _bounded(10.0, 0, 200)
    flagellar_motors_per_cell: int = _bounded(1, 0, 100, draw=(0, 3))
    motor_variety: float = _bounded(0.0, 0, 1, draw=(0.0, 1.0))
    secretins_per_cell: int = _bounded(2, 0, 1000, draw=(0, 6))
    docked_ribosomes_per_cell: int = _bounded(6, 0, 1000, draw=(0, 15))
    inner_membrane_proteins_per_cell: int = _bounded(40, 0, 10000, draw=(0, 80))
    outer_membrane_proteins_per_cell: int = _bounded(40, 0, 10000, draw=(0, 80))
    ribosomes_per_cubic_um: float = _bounded(5000.0, 0, 50000, draw=(500, 10000))
    outside_proteins_per_cubic_um: float = _bounded(200.0, 0, 50000, draw=(0, 1000))
    gold_beads: int = _bounded(4, 0, 1000, draw=(0, 12))
    gold_diameter_nm: float = _bounded(10.0, 2, 30)
    carbon_film_nm: float = _bounded(0.0, 0, 100)
    tilt_range_degrees: float = _bounded(60.0, 5, 90, draw=(42, 66))
    tilt_step_degrees: float = _bounded(3.0, 0.5, 20)
    pretilt_degrees: float = _bounded(0.0, -30, 30, draw=(-6, 6))
    total_dose_per_square_angstrom: float = _bounded(110.0, 1, 10000, draw=(60, 150))
    detector_efficiency: float = _bounded(0.8, 0.01, 1, draw=(0.6, 0.9))
    noise_scale: float = _bounded(1.0, 0, 100)
    mean_free_path_nm: float = _bounded(320.0, 50, 10000, draw=(250, 400))
    ice_thickness_nm: float = _bounded(0.0, 0, 1000)
    phase_per_nm: float = _bounded(0.017, 0, 0.1, draw=(0.014, 0.020))
    voltage_kv: float = _bounded(300.0, 60, 1000)
    spherical_aberration_mm: float = _bounded(2.7, 0, 10)
    amplitude_contrast: float = _bounded(0.08, 0, 1, draw=(0.06, 0.12))
    defocus_um: float = _bounded(6.0, 0, 30, draw=(2.5, 9))
    defocus_spread_um: float = _bounded(0.2, 0, 5, draw=(0.0, 0.5))
    phase_shift_pi: float = _bounded(0.0, 0, 1)
    b_factor: float = _bounded(600.0, 0, 100000, draw=(100, 2000))
    phase_flip: bool = False
    deconvolution: float = _bounded(0.0, 0, 2)
    shift_error_nm: float = _bounded(0.8, 0, 20, draw=(0.0, 1.5))
    angle_error_degrees: float = _bounded(0.1, 0, 5, draw=(0.0, 0.3))
    radial_cutoff: float = _bounded(0.4, 0.05, 0.5, draw=(0.3, 0.5))
    radial_falloff: float = _bounded(0.05, 0.001, 0.5, draw=(0.03, 0.08))
    sirt_iterations: int = _bounded(0, 0, 1000)
    intensity_ramp: float = _bounded(0.2, 0, 10, draw=(0.0, 0.6))
    corner_darkening: float = _bounded(0.2, 0, 10, draw=(0.0, 0.6))

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
        """Return the defaults, updated by `values`; raise ConfigError if a name or value is invalid."""
        known = sorted(item.name for item in fields(cls))
        for name in values:
            if name not in known:
                raise ConfigError(f"simulate has no parameter {name!r}; give some of {', '.join(known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return field names and values."""
        return asdict(self)


def random_physics(rng: np.random.Generator | int, *, widen: float = 0.0, **fixed: Any) -> Physics:
    """Draw the parameters of one tomogram from the ranges that the bundled models are trained on.

    Three in four tomograms show cells with T3SS, one in ten cells without, the others only vesicles: neither
    a double membrane nor a single bilayer is evidence of a T3SS.

    Parameters
    ----------
    rng
        Random generator or seed.
    widen
        Fraction by which every range is widened, half of it at each end, within the bounds of `Physics`: for
        tomograms unlike those of the training.
    **fixed
        Fields of `Physics` with fixed values.
    """
    if not 0 <= widen <= 2:
        raise ConfigError(f"widen is {widen!r}; give a fraction from 0 to 2.")
    rng = np.random.default_rng(rng)

    def uniform(low: float, high: float) -> float:
        more = widen * (high - low) / 2
        return float(rng.uniform(low - more, high + more))

    def count(low: float, high: float) -> int:
        more = widen * (high - low) / 2
        return max(int(rng.integers(round(low - more), round(high + more) + 1)), 0)

    specimen = rng.choice(["t3ss", "bare", "vesicles"], p=[0.75, 0.10, 0.15])
    cells = 0 if specimen == "vesicles" else max(1, count(1, 3))
    weighting = rng.choice(["plain", "sirt", "deconvolved"], p=[0.6, 0.22, 0.18])
    special: dict[str, Callable[[], float]] = {
        "cells": lambda: cells,
        "large_vesicles": lambda: max(1, count(1, 4)) if specimen == "vesicles" else count(0, 1),
        "t3ss_per_cell": lambda: max(1, count(3, 15)) if specimen == "t3ss" else 0,
        "gold_diameter_nm": lambda: float(rng.choice([5.0, 6.0, 10.0, 15.0])),
        "carbon_film_nm": lambda: uniform(8, 20) if rng.random() < 0.12 else 0.0,
        "tilt_step_degrees": lambda: float(rng.choice([2.0, 3.0, 4.0], p=[0.4, 0.5, 0.1])),
        "noise_scale": lambda: float(np.exp(uniform(np.log(0.4), np.log(1.7)))),
        "phase_flip": lambda: bool(rng.random() < 0.4),
        "deconvolution": lambda: uniform(0.3, 0.8) if weighting == "deconvolved" else 0.0,
        "sirt_iterations": lambda: count(5, 30) if weighting == "sirt" else 0,
    }
    drawn: dict[str, Any] = {}
    # The order of the draws must not change: the same seed always gives the same parameters.
    for item in sorted(fields(Physics), key=lambda item: item.name in DRAWN_LAST):
        limits = item.metadata.get("draw")
        if item.name in special:
            drawn[item.name] = special[item.name]()
        elif limits is not None:
            drawn[item.name] = (count if isinstance(item.default, int) else uniform)(*limits)
        if item.name in drawn and "low" in item.metadata:
            drawn[item.name] = min(max(drawn[item.name], item.metadata["low"]), item.metadata["high"])
    return Physics.from_dict(drawn | fixed)


def other_microscopes(rng: np.random.Generator | int) -> dict[str, Any]:
    """Draw fields of `Physics` beyond the ranges of `random_physics`, to give it as fixed ones.

    Each habit of other microscopes has its own probability: phase plates near focus, few or many tilts, a
    small tilt range, poor alignment, strong noise, and a low or high dose.
    """
    rng = np.random.default_rng(rng)
    habits: list[tuple[float, dict[str, Any]]] = [
        (0.3, {"phase_shift_pi": rng.uniform(0.25, 0.75), "defocus_um": rng.uniform(0.3, 2.5)}),
        (0.3, {"tilt_step_degrees": float(rng.choice([1.0, 4.0, 5.0, 6.0]))}),
        (0.15, {"tilt_range_degrees": rng.uniform(36, 44)}),
        (0.3, {"shift_error_nm": rng.uniform(1.0, 2.2), "angle_error_degrees": rng.uniform(0.1, 0.4)}),
        (0.3, {"noise_scale": float(np.exp(rng.uniform(np.log(1.4), np.log(3.2))))}),
        (0.2, {"total_dose_per_square_angstrom": float(rng.choice([40.0, 50.0, 170.0]))}),
    ]
    return {name: value for share, fields in habits if rng.random() < share for name, value in fields.items()}
