"""The type III secretion system: base, needle, export apparatus, sorting platform."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.particles import Float32, Particle, below, between, tube, union

__all__ = ["Architecture", "t3ss"]

CLOSED_WALL = 0.75  # Above this value of `Architecture.wall`, the pods form a closed wall.


def _range(published: float, low: float, high: float) -> Any:
    return field(default=published, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Architecture:
    """Architecture of the T3SS of one species: sizes in nm, densities in units of protein.

    Defaults are published: Hu et al. 2017 (Cell 168, 1065) and Miletic et al. 2021 (Nat Commun 12, 1546). The
    base is about 32 nm tall, the inner ring 26 nm wide, the needle 7 to 8 nm wide with a channel of 2.5 nm,
    and the pods stand on a ring 32 nm in diameter. Sizes across the axis are radii.
    """

    # Height of the base beyond the middle of either membrane.
    overhang: float = _range(2.5, 1.0, 5.0)
    inner_ring: float = _range(13.0, 10.0, 14.5)
    inner_ring_hole: float = _range(6.8, 0.0, 8.0)
    inner_ring_height: float = _range(9.0, 5.0, 13.0)
    # Connector: outer radius at the inner ring and at the outer ring; channel relative to the outer radius.
    neck_low: float = _range(6.6, 5.0, 11.0)
    neck_high: float = _range(6.6, 5.0, 9.0)
    neck_hole: float = _range(2 / 3, 0.2, 0.75)
    outer_ring: float = _range(8.4, 6.5, 11.0)
    outer_ring_height: float = _range(9.0, 4.0, 12.0)
    needle: float = _range(3.75, 3.0, 4.5)
    channel: float = _range(1.25, 0.0, 1.5)
    # Export apparatus; its depth is measured from the lower end of the base.
    export: float = _range(4.2, 3.0, 5.5)
    export_density: float = _range(0.8, 0.2, 1.1)
    export_depth: float = _range(3.0, 0.0, 12.0)
    # Sorting platform: depth of its middle, and of the pods' top, below the middle of the inner membrane.
    platform_depth: float = _range(22.5, 18.0, 27.0)
    pod_top: float = _range(9.0, 6.0, 15.0)
    pod_ring: float = _range(16.0, 13.0, 18.0)
    pod: float = _range(3.6, 2.2, 5.0)
    hub: float = _range(4.5, 3.0, 8.0)
    spoke_density: float = _range(0.7, 0.0, 1.0)
    # Above 0.75, the pods form a closed wall, like a ring that is not resolved.
    wall: float = _range(0.0, 0.0, 1.0)
    # Fraction of the membrane that the base displaces.
    displaced: float = _range(1.0, 0.5, 1.0)
    # Density of the whole.
    density: float = _range(1.0, 0.6, 1.5)

    @classmethod
    def draw(cls, rng: np.random.Generator, variety: float) -> Architecture:
        """Draw an architecture: with `variety` 0 the published one, with 1 from anywhere in the ranges."""
        drawn = {}
        for item in fields(cls):
            default = float(getattr(cls, item.name))
            value = float(rng.uniform(item.metadata["low"], item.metadata["high"]))
            drawn[item.name] = default + variety * (value - default)
        return cls(**drawn)


def t3ss(
    rng: np.random.Generator,
    physics: Physics,
    mean: Architecture,
    *,
    needle_length_nm: float,
    with_platform: bool = True,
) -> Particle:
    """Draw a T3SS around the mean architecture of its species; needle length 0: a base without needle."""
    gap_nm = physics.membrane_gap_nm

    def drawn(size: float) -> float:
        return float(size * (1 + physics.t3ss_size_spread * np.clip(rng.standard_normal(), -2.5, 2.5)))

    half = gap_nm / 2 + drawn(mean.overhang)
    inner_ring, neck, outer_ring = drawn(mean.inner_ring), drawn(mean.neck_low), drawn(mean.outer_ring)
    needle = drawn(mean.needle)
    inner_height, outer_height = drawn(mean.inner_ring_height), drawn(mean.outer_ring_height)
    tip = half + needle_length_nm
    platform = -gap_nm / 2 - drawn(mean.platform_depth)
    pod_ring, pod_radius, hub_radius = drawn(mean.pod_ring), drawn(mean.pod), drawn(mean.hub)
    pod_top = -gap_nm / 2 - drawn(mean.pod_top)
    turn = rng.uniform(0, np.pi / 3)
    density = drawn(mean.density)
    # A separate random stream: sizes do not depend on the spread of densities.
    relative = 1 + physics.t3ss_density_spread * np.clip(rng.spawn(1)[0].standard_normal(8), -2.5, 2.5)
    inner_part, neck_part, outer_part, export_part, rod_part, pod_part, hub_part, spoke_part = np.maximum(
        relative, 0
    ).astype(np.float32)

    # The connector is a cone: its radius grows from `neck` at `bottom` by `widening` at `top`.
    bottom, top = -half + inner_height, half - outer_height
    widening = mean.neck_high / mean.neck_low - 1
    rod_top = tip if needle_length_nm > 0 else -2

    def platform_parts(s: Float32, r: Float32, phi: Float32) -> list[Float32]:
        # Folding phi maps the six pods onto one.
        folded = np.mod(phi + np.float32(turn), np.float32(np.pi / 3)) - np.float32(np.pi / 6)
        if mean.wall > CLOSED_WALL:
            distance = np.abs(r - np.float32(pod_ring))
        else:
            squared = r * r + pod_ring**2 - 2 * pod_ring * r * np.cos(folded)
            distance = np.sqrt(np.maximum(squared, 0))
        spoke = below(np.abs(r * np.sin(folded)), 1.6) * below(r, pod_ring)
        spoke_density = np.float32(mean.spoke_density) * spoke_part
        return [
            between(s, platform - 4, pod_top) * below(distance, pod_radius) * pod_part,
            tube(s, r, platform - 4.5, platform + 3.5, 0, hub_radius) * hub_part,
            between(s, platform - 3.5, platform + 0.5) * spoke * spoke_density,
            tube(s, r, platform + 3, -half - 6, 0, 2.2) * (np.float32(0.5) * spoke_part),
        ]

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        height = np.clip((s - np.float32(bottom)) / np.float32(max(top - bottom, 1.0)), 0, 1)
        cone_r = r / (1 + np.float32(widening) * height)
        export_density = np.float32(mean.export_density) * export_part
        parts = [
            tube(s, r, -half - 1.5, bottom, mean.inner_ring_hole, inner_ring) * inner_part,
            tube(s, r, bottom - 3, bottom, neck - 2.5, inner_ring - 2) * inner_part,
            tube(s, cone_r, bottom - 2, top + 2, mean.neck_hole * mean.neck_low, neck) * neck_part,
            tube(s, r, top, half + 1, 4.2, outer_ring) * outer_part,
            tube(s, r, -half - mean.export_depth, -half + 6, 0, mean.export) * export_density,
            tube(s, r, -half + 7, rod_top, mean.channel, needle) * rod_part,
        ]
        if with_platform:
            parts += platform_parts(s, r, phi)
        found = union(*parts)
        filled = union(
            tube(s, r, -half - 1.5, bottom, 0, inner_ring),
            tube(s, cone_r, bottom, top, 0, neck),
            tube(s, r, top, half + 1, 0, outer_ring),
            np.minimum(found, 1),
        )
        return found * np.float32(density), filled.astype(np.float32) * np.float32(mean.displaced)

    low = platform - 7 if with_platform else -half - max(mean.export_depth, 3.0) - 3
    return Particle("t3ss", (low, max(tip, half) + 3, pod_ring + pod_radius + 3), shape)
