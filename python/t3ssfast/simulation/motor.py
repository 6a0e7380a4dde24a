"""The flagellar motor: C-ring, MS-, P- and L-rings, stators, export apparatus, hook, filament, sheath."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from t3ssfast.simulation.particles import Float32, Particle, between, tube, union

__all__ = ["MotorArchitecture", "flagellar_motor", "variety_stream"]

# A species with full variety: fraction with a sheath, and with stators that are resolved one by one.
SHEATHED_FRACTION, RESOLVED_STATORS_FRACTION = 0.2, 0.7
# Numbers of stator units around a motor (Beeby et al. 2016, PNAS 113, E1917).
STATOR_UNITS = (8, 18)
# With full variety, the fraction of the motors of a species that have no hook yet, drawn up to this.
MAX_HOOKLESS_FRACTION = 0.5
# Key of the stream of random numbers that varies motors, far from those of spawned streams.
VARIETY_STREAM = 1 << 20


def _range(published: float, low: float, high: float) -> Any:
    return field(default=published, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class MotorArchitecture:
    """Architecture of the flagellar motor of one species: sizes in nm, densities in units of protein.

    Defaults are those of Salmonella. Ranges follow the diversity among species (Chen et al. 2011, EMBO J 30,
    2972; Beeby et al. 2016, PNAS 113, E1917): C-rings are 34 to 57 nm across. Sizes across the axis are
    radii. Depths and heights are measured from the middle of the nearer membrane.
    """

    c_ring: float = _range(22.0, 17.0, 28.5)
    c_ring_wall: float = _range(4.5, 3.5, 6.5)
    c_ring_bottom: float = _range(22.0, 18.0, 28.0)
    c_ring_density: float = _range(1.0, 0.6, 1.1)
    # The inner lobe of the C-ring, which joins it to the MS-ring.
    lobe: float = _range(0.7, 0.2, 0.9)
    ms_ring: float = _range(14.5, 11.5, 16.0)
    ms_density: float = _range(1.0, 0.5, 1.1)
    rod: float = _range(6.0, 4.5, 7.0)
    p_ring: float = _range(13.0, 10.5, 16.0)
    p_density: float = _range(1.0, 0.0, 1.1)
    l_ring: float = _range(12.0, 9.5, 14.5)
    l_density: float = _range(1.0, 0.0, 1.1)
    # A further ring below the outer membrane: H- and T-rings of Vibrio, the basal disk of Campylobacter.
    disk: float = _range(13.0, 13.0, 32.0)
    disk_density: float = _range(0.0, 0.0, 0.8)
    disk_depth: float = _range(8.0, 4.0, 13.0)
    # Export apparatus within the C-ring, and the ATPase below it.
    export: float = _range(7.0, 5.0, 10.0)
    export_density: float = _range(0.9, 0.4, 1.0)
    atpase_density: float = _range(0.0, 0.0, 0.9)
    # Middle of the ring of stators relative to the C-ring, and its density.
    stator_offset: float = _range(-3.0, -6.0, 2.0)
    stator_density: float = _range(0.45, 0.2, 0.9)
    stator_height: float = _range(10.0, 7.0, 16.0)
    hook: float = _range(9.0, 7.5, 10.5)
    density: float = _range(1.0, 0.7, 1.4)
    # Number of resolved stators; 0: a closed ring.
    stators: int = 0
    stator_fraction: float = 0.6
    hookless_fraction: float = 0.0
    sheathed: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, variety: float) -> MotorArchitecture:
        """Draw an architecture: with `variety` 0 the published one, with 1 from anywhere in the ranges."""
        drawn: dict[str, Any] = {}
        for item in fields(cls):
            if item.metadata:
                default = float(getattr(cls, item.name))
                value = float(rng.uniform(item.metadata["low"], item.metadata["high"]))
                drawn[item.name] = default + variety * (value - default)
        resolved, units = rng.random(), int(rng.integers(STATOR_UNITS[0], STATOR_UNITS[1] + 1))
        sheathed, stator_fraction, hookless = rng.random(3).tolist()
        drawn["stators"] = units if resolved < RESOLVED_STATORS_FRACTION * variety else 0
        drawn["sheathed"] = sheathed < SHEATHED_FRACTION * variety
        drawn["stator_fraction"] = (1 - variety) * cls.stator_fraction + variety * stator_fraction
        drawn["hookless_fraction"] = variety * MAX_HOOKLESS_FRACTION * hookless
        return cls(**drawn)

    @property
    def diameter_nm(self) -> float:
        """Diameter of the C-ring."""
        return 2 * self.c_ring


def flagellar_motor(
    rng: np.random.Generator, gap_nm: float, mean: MotorArchitecture | None = None
) -> Particle:
    """Draw a flagellar motor around the mean architecture of its species, the published one by default."""
    mean = MotorArchitecture() if mean is None else mean
    half = gap_nm / 2
    scale = float(rng.uniform(0.94, 1.06))
    c_ring, hook = mean.c_ring * scale, mean.hook * scale
    length = float(rng.uniform(45, 65))
    filament = float(rng.uniform(0, 150)) if rng.random() < 0.7 else 0.0
    bend, azimuth = float(rng.uniform(0, 0.35)), float(rng.uniform(0, 2 * np.pi))
    with_stators = rng.random() < mean.stator_fraction
    # The azimuth is uniform and of no further use without a hook: no other draw changes.
    has_hook = azimuth / (2 * np.pi) >= mean.hookless_fraction
    if not has_hook:
        filament = 0.0
    bottom = -half - mean.c_ring_bottom
    # Height above the outer membrane at which the filament ends.
    end = length + filament if has_hook else 0.0

    def stator_ring(s: Float32, r: Float32, phi: Float32) -> Float32:
        middle = mean.c_ring + mean.stator_offset
        height = between(s, -half - 4, -half + mean.stator_height)
        if mean.stators == 0:
            return between(r, middle - 3, (middle + 3) * scale) * height
        share = np.float32(2 * np.pi / mean.stators)
        folded = np.mod(phi, share) - share / 2
        squared = r * r + np.float32(middle**2) - 2 * r * np.float32(middle) * np.cos(folded)
        across = np.sqrt(np.maximum(squared, 0))
        return np.asarray(np.clip(0.5 - (across - np.float32(2.8)) / np.float32(1.6), 0, 1) * height)

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        # The hook bends: its axis is displaced by the square of the height above the outer membrane.
        shift = np.float32(bend / length) * np.maximum(s - np.float32(half), 0) ** 2
        squared = r * r + shift * shift - 2 * r * shift * np.cos(phi - np.float32(azimuth))
        bent = np.sqrt(np.maximum(squared, 0))
        parts = [
            tube(s, r, bottom, -half - 7, c_ring - mean.c_ring_wall, c_ring)
            * np.float32(mean.c_ring_density),
            tube(s, r, -half - 9, -half - 3, 11, c_ring - 1) * np.float32(mean.lobe),
            tube(s, r, -half - 4, -half + 6, 5, mean.ms_ring * scale) * np.float32(mean.ms_density),
            tube(s, r, -half + 3, half + 2, 1.5, mean.rod),
            tube(s, r, half - 11, half - 5, 5, mean.p_ring * scale) * np.float32(mean.p_density),
            tube(s, r, half - 4, half + 3, 5, mean.l_ring * scale) * np.float32(mean.l_density),
            tube(s, r, -half - 14, -half - 5, 2, mean.export) * np.float32(mean.export_density),
        ]
        if mean.atpase_density > 0:
            atpase = tube(s, r, -half - 27, -half - 18, 0, 5.5)
            parts.append(atpase * np.float32(mean.atpase_density))
        if mean.disk_density > 0:
            top = half - mean.disk_depth
            parts.append(tube(s, r, top - 3, top, 5, mean.disk) * np.float32(mean.disk_density))
        if has_hook:
            parts.append(tube(s, bent, half + 2, half + length, 1.5, hook))
        if filament:
            parts.append(tube(s, bent, half + length, half + end, 1.2, hook * 1.05))
        if with_stators:
            parts.append(stator_ring(s, r, phi) * np.float32(mean.stator_density))
        if mean.sheathed and has_hook:
            # The outer membrane continues around hook and filament: two layers of head groups.
            for inner in (hook + 3.5, hook + 7.5):
                parts.append(tube(s, bent, half + 2, half + end + 4, inner, inner + 1.8) * np.float32(0.8))
        found = union(*parts)
        filled = union(tube(s, r, -half - 4, half + 3, 0, 12), np.minimum(found, 1))
        return found * np.float32(mean.density), filled

    sheath = 10.0 if mean.sheathed else 0.0
    widest = max(c_ring + 4, (mean.c_ring + mean.stator_offset + 5) * scale, mean.disk + 2)
    radius = widest + sheath + bend / length * end**2
    low = min(bottom, -half - 27 if mean.atpase_density > 0 else bottom) - 3
    return Particle("flagellar_motor", (low, half + max(end + (6 if sheath else 0), 3.0) + 3, radius), shape)


def variety_stream(rng: np.random.Generator) -> np.random.Generator:
    """Return a random stream beside that of `rng`, of which it takes no draw and no spawned stream."""
    own = rng.bit_generator.seed_seq
    return np.random.default_rng(
        np.random.SeedSequence(own.entropy, spawn_key=(*own.spawn_key, VARIETY_STREAM))  # type: ignore[attr-defined]
    )
