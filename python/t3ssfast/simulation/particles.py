"""Machines and look-alikes as densities in cylinder coordinates about their own axis.

Every particle has its origin half-way between the membranes (or at its centre, where it floats freely),
and its axis s pointing out of the cell; r is the distance from the axis and phi the angle about it. Lengths
are in nm, protein is 1, ice is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Architecture",
    "Particle",
    "chemoreceptor_patch",
    "flagellar_motor",
    "globule",
    "gold_bead",
    "membrane_protein",
    "ribosome",
    "secretin",
    "t3ss",
]

Float32 = npt.NDArray[np.float32]
Shape = Callable[[Float32, Float32, Float32], tuple[Float32, Float32]]

# Edges as soft as the sampling: sharper ones would alias at 1 to 2 nm a voxel.
EDGE_NM = 1.6
# Of `Architecture.wall`.
WALL = 0.75


@dataclass(frozen=True)
class Particle:
    """A kind of object and its density.

    Parameters
    ----------
    kind
        Label, such as "t3ss".
    reach_nm
        Lowest s, highest s, and largest r of its density.
    shape
        ``shape(s, r, phi) -> density, filled``: `filled` in [0, 1] says how much of what was there before
        (membrane, solvent) the particle replaces.
    """

    kind: str
    reach_nm: tuple[float, float, float]
    shape: Shape


def _below(value: Float32, edge: float) -> Float32:
    """1 where value < edge, 0 where above, soft between."""
    return np.asarray(np.clip(np.float32(0.5) - (value - np.float32(edge)) / np.float32(EDGE_NM), 0, 1))


def _between(value: Float32, low: float, high: float) -> Float32:
    return _below(value, high) * _below(-value, -low)


def _tube(s: Float32, r: Float32, low: float, high: float, inner: float, outer: float) -> Float32:
    """A wall between two radii (inner <= 0: solid) and two heights."""
    wall = _below(r, outer) if inner <= 0 else _between(r, inner, outer)
    return wall * _between(s, low, high)


def _ball(s: Float32, r: Float32, phi: Float32, at: tuple[float, float, float], radius: float) -> Float32:
    """A ball centred at (s, r, phi)."""
    across = r * r + np.float32(at[1] ** 2) - 2 * np.float32(at[1]) * r * np.cos(phi - np.float32(at[2]))
    return _below(np.sqrt(np.maximum(across + (s - np.float32(at[0])) ** 2, 0)), radius)


def _highest(*parts: Float32) -> Float32:
    out = parts[0]
    for part in parts[1:]:
        out = np.maximum(out, part)
    return out


def _among(published: float, low: float, high: float) -> Any:
    return field(default=published, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Architecture:
    """What the injectisomes of a species are like: sizes in nm, densities of parts in units of protein.

    The defaults are published ones, after Hu et al. 2017 (Cell 168, 1065) and Miletic et al. 2021 (Nat Commun
    12, 1546): base about 32 nm tall, inner ring 26 nm wide, needle 7 to 8 nm wide with a channel of 2.5 nm,
    pods on a ring of 32 nm.

    Parameters
    ----------
    overhang
        Of the base beyond the middle of either membrane.
    inner_ring, inner_ring_hole, inner_ring_height
        Outer radius, radius of the space inside, height.
    neck_low, neck_high, neck_hole
        Outer radii of the connector where it leaves the inner ring and where it meets the outer one; radius
        of its channel, as a share of the outer.
    outer_ring, outer_ring_height
        Outer radius, height.
    needle, channel
        Radii.
    export, export_density, export_depth
        Radius of the export apparatus, its density, and how far it hangs below the base.
    platform_depth, pod_top
        From the middle of the inner membrane down to the middle of the platform, and to the top of the pods.
    pod_ring, pod, hub
        Radii: of the ring that the pods stand on, of a pod, of the hub.
    spoke_density
        Between hub and pods.
    wall
        Above 0.75 the pods are a closed wall, as a ring that is not resolved.
    displaced
        Share of the membrane's density that is gone where the base stands.
    density
        Of the whole.
    """

    overhang: float = _among(2.5, 1.0, 5.0)
    inner_ring: float = _among(13.0, 10.0, 14.5)
    inner_ring_hole: float = _among(6.8, 0.0, 8.0)
    inner_ring_height: float = _among(9.0, 5.0, 13.0)
    neck_low: float = _among(6.6, 5.0, 11.0)
    neck_high: float = _among(6.6, 5.0, 9.0)
    neck_hole: float = _among(2 / 3, 0.2, 0.75)
    outer_ring: float = _among(8.4, 6.5, 11.0)
    outer_ring_height: float = _among(9.0, 4.0, 12.0)
    needle: float = _among(3.75, 3.0, 4.5)
    channel: float = _among(1.25, 0.0, 1.5)
    export: float = _among(4.2, 3.0, 5.5)
    export_density: float = _among(0.8, 0.2, 1.1)
    export_depth: float = _among(3.0, 0.0, 12.0)
    platform_depth: float = _among(22.5, 18.0, 27.0)
    pod_top: float = _among(9.0, 6.0, 15.0)
    pod_ring: float = _among(16.0, 13.0, 18.0)
    pod: float = _among(3.6, 2.2, 5.0)
    hub: float = _among(4.5, 3.0, 8.0)
    spoke_density: float = _among(0.7, 0.0, 1.0)
    wall: float = _among(0.0, 0.0, 1.0)
    displaced: float = _among(1.0, 0.5, 1.0)
    density: float = _among(1.0, 0.6, 1.5)

    @classmethod
    def draw(cls, rng: np.random.Generator, variety: float) -> Architecture:
        """One at random: with no variety the published one, with 1 from anywhere in the ranges."""
        published, drawn = cls(), {}
        for item in fields(cls):
            usual = getattr(published, item.name)
            chosen = float(rng.uniform(item.metadata["low"], item.metadata["high"]))
            drawn[item.name] = usual + variety * (chosen - usual)
        return cls(**drawn)


def t3ss(
    rng: np.random.Generator,
    gap_nm: float,
    *,
    size_spread: float,
    density_spread: float = 0.0,
    needle_length_nm: float,
    with_platform: bool,
    like: Architecture | None = None,
) -> Particle:
    """An injectisome: base through both membranes, needle, export apparatus, six-pod sorting platform.

    Parameters
    ----------
    rng
        Source of the spread.
    gap_nm
        Between the membranes' middles.
    size_spread
        Relative standard deviation of each size.
    density_spread
        The same of each part's density: parts are more or less occupied, ordered and filled.
    needle_length_nm
        Beyond the outer membrane; 0 for a base without needle.
    with_platform
        Whether the sorting platform is there.
    like
        What its species is like; None: as published.
    """
    kind = Architecture() if like is None else like

    def about(size: float) -> float:
        return float(size * (1 + size_spread * np.clip(rng.standard_normal(), -2.5, 2.5)))

    half = gap_nm / 2 + about(kind.overhang)
    inner_ring, neck, outer_ring = about(kind.inner_ring), about(kind.neck_low), about(kind.outer_ring)
    needle, channel = about(kind.needle), kind.channel
    inner_height, outer_height = about(kind.inner_ring_height), about(kind.outer_ring_height)
    tip = half + needle_length_nm
    platform = -gap_nm / 2 - about(kind.platform_depth)
    pod_ring, pod_radius, hub_radius = about(kind.pod_ring), about(kind.pod), about(kind.hub)
    pod_top = -gap_nm / 2 - about(kind.pod_top)
    turn = rng.uniform(0, np.pi / 3)
    density = about(kind.density)
    # A generator of its own: the particle's sizes do not depend on whether densities vary.
    drawn = 1 + density_spread * np.clip(rng.spawn(1)[0].standard_normal(8), -2.5, 2.5)
    inner_part, neck_part, outer_part, export_part, rod_part, pod_part, hub_part, spoke_part = np.maximum(
        drawn, 0
    ).astype(np.float32)

    # The connector is a cone; where it is a tube its walls are those of the published one.
    bottom, top = -half + inner_height, half - outer_height
    widening = kind.neck_high / kind.neck_low - 1

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        # Radii are measured in those of the connector's lower end.
        height = np.clip((s - np.float32(bottom)) / np.float32(max(top - bottom, 1.0)), 0, 1)
        along = r / (1 + np.float32(widening) * height)
        body = _highest(
            _tube(s, r, -half - 1.5, bottom, kind.inner_ring_hole, inner_ring) * inner_part,
            _tube(s, r, bottom - 3, bottom, neck - 2.5, inner_ring - 2) * inner_part,
            _tube(s, along, bottom - 2, top + 2, kind.neck_hole * kind.neck_low, neck) * neck_part,
            _tube(s, r, top, half + 1, 4.2, outer_ring) * outer_part,
            _tube(s, r, -half - kind.export_depth, -half + 6, 0, kind.export)
            * (np.float32(kind.export_density) * export_part),
        )
        rod = (
            _tube(s, r, -half + 7, tip, channel, needle)
            if needle_length_nm > 0
            else _tube(s, r, -half + 7, -2, channel, needle)
        )
        parts = [body, rod * rod_part]
        if with_platform:
            # Folding phi makes one pod stand for six.
            folded = np.mod(phi + np.float32(turn), np.float32(np.pi / 3)) - np.float32(np.pi / 6)
            across = (
                np.abs(r - np.float32(pod_ring))
                if kind.wall > WALL
                else np.sqrt(np.maximum(r * r + pod_ring**2 - 2 * pod_ring * r * np.cos(folded), 0))
            )
            parts.append(_between(s, platform - 4, pod_top) * _below(across, pod_radius) * pod_part)
            parts.append(_tube(s, r, platform - 4.5, platform + 3.5, 0, hub_radius) * hub_part)
            spoke = _below(np.abs(r * np.sin(folded)), 1.6) * _below(r, pod_ring)
            spokes = np.float32(kind.spoke_density) * spoke_part
            parts.append(_between(s, platform - 3.5, platform + 0.5) * spoke * spokes)
            parts.append(_tube(s, r, platform + 3, -half - 6, 0, 2.2) * (np.float32(0.5) * spoke_part))
        found = _highest(*parts)
        filled = _highest(
            _tube(s, r, -half - 1.5, bottom, 0, inner_ring),
            _tube(s, along, bottom, top, 0, neck),
            _tube(s, r, top, half + 1, 0, outer_ring),
            np.minimum(found, 1),
        )
        return found * np.float32(density), filled.astype(np.float32) * np.float32(kind.displaced)

    low = platform - 7 if with_platform else -half - max(kind.export_depth, 3.0) - 3
    return Particle("t3ss", (low, max(tip, half) + 3, pod_ring + pod_radius + 3), shape)


def flagellar_motor(rng: np.random.Generator, gap_nm: float) -> Particle:
    """A flagellar motor: C-ring of about 45 nm, MS-ring, rod, P- and L-rings, thick hook, filament or not."""
    half = gap_nm / 2
    scale = float(rng.uniform(0.94, 1.06))
    c_ring = 22.0 * scale
    hook = 9.0 * scale
    length = float(rng.uniform(45, 65))
    filament = float(rng.uniform(0, 150)) if rng.random() < 0.7 else 0.0
    lean, way = float(rng.uniform(0, 0.35)), float(rng.uniform(0, 2 * np.pi))
    stators = rng.random() < 0.6

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        # The hook bends: its axis moves sideways with the square of the height above the outer membrane.
        shift = np.float32(lean / length) * np.maximum(s - np.float32(half), 0) ** 2
        bent = np.sqrt(np.maximum(r * r + shift * shift - 2 * r * shift * np.cos(phi - np.float32(way)), 0))
        parts = [
            _tube(s, r, -half - 22, -half - 7, c_ring - 4.5, c_ring),
            _tube(s, r, -half - 9, -half - 3, 11, c_ring - 1) * np.float32(0.7),
            _tube(s, r, -half - 4, -half + 6, 5, 14.5 * scale),
            _tube(s, r, -half + 3, half + 2, 1.5, 6.0),
            _tube(s, r, half - 11, half - 5, 5, 13 * scale),
            _tube(s, r, half - 4, half + 3, 5, 12 * scale),
            _tube(s, r, -half - 14, -half - 5, 2, 7) * np.float32(0.9),
            _tube(s, bent, half + 2, half + length, 1.5, hook),
        ]
        if filament:
            parts.append(_tube(s, bent, half + length, half + length + filament, 1.2, hook * 1.05))
        if stators:
            parts.append(_tube(s, r, -half - 4, -half + 10, 16, 22 * scale) * np.float32(0.45))
        found = _highest(*parts)
        filled = _highest(_tube(s, r, -half - 4, half + 3, 0, 12), found)
        return found, filled

    top = half + length + filament
    return Particle(
        "flagellar_motor", (-half - 25, top + 3, c_ring + 4 + lean / length * (top - half) ** 2), shape
    )


def secretin(rng: np.random.Generator, gap_nm: float) -> Particle:
    """A barrel hanging from the outer membrane into the periplasm (type II secretion, type IV pili)."""
    half = gap_nm / 2
    radius, depth = float(rng.uniform(6, 8)), float(rng.uniform(14, 22))
    pilus = float(rng.uniform(20, 90)) if rng.random() < 0.3 else 0.0
    lower = rng.random() < 0.5

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        parts = [
            _tube(s, r, half - depth, half + 3, 3.5, radius),
            _tube(s, r, half - 5, half - 2, 0, radius) * np.float32(0.8),
        ]
        if lower:
            parts.append(_tube(s, r, -half - 8, -half + 5, 0, 5.5) * np.float32(0.9))
        if pilus:
            parts.append(_tube(s, r, half - depth, half + pilus, 0, 2.8))
        found = _highest(*parts)
        return found, _highest(_tube(s, r, half - depth, half + 3, 0, radius), found)

    return Particle("secretin", (-half - 10, half + max(3.0, pilus) + 2, radius + 2), shape)


def chemoreceptor_patch(rng: np.random.Generator, gap_nm: float) -> Particle:
    """A patch of chemoreceptors: thin pillars at the inner membrane and a base plate 25 nm below it."""
    half = gap_nm / 2
    radius = float(rng.uniform(25, 55))
    plate = -half - float(rng.uniform(23, 27))
    pitch = 12.0

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        inside = _below(r, radius)
        first, second = r * np.cos(phi), r * np.sin(phi)
        # Three waves at 120 degrees make the hexagonal lattice of the pillars.
        wave = np.float32(4 * np.pi / (np.sqrt(3) * pitch))
        lattice = np.cos(wave * first)
        for angle in (2 * np.pi / 3, 4 * np.pi / 3):
            lattice = lattice + np.cos(
                wave * np.float32(np.cos(angle)) * first + wave * np.float32(np.sin(angle)) * second
            )
        pillars = np.clip((lattice - np.float32(0.3)) / 2, 0, 1) * _between(s, plate, -half)
        found = inside * _highest(
            pillars * np.float32(0.7), _between(s, plate - 2.5, plate + 2.5) * np.float32(0.7)
        )
        return found, found

    return Particle("chemoreceptor_array", (plate - 5, -half + 2, radius + 2), shape)


def ribosome(rng: np.random.Generator) -> Particle:
    """A 70S ribosome, about 21 nm across: a large and a small lobe, denser than protein for its RNA."""
    way = rng.uniform(0, 2 * np.pi)
    bumps = [
        (
            (float(rng.uniform(-7, 7)), float(rng.uniform(5, 9)), float(rng.uniform(0, 2 * np.pi))),
            float(rng.uniform(2, 3.5)),
        )
        for _ in range(4)
    ]

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        parts = [
            _ball(s, r, phi, (-2.5, 0.0, 0.0), 8.3),
            _ball(s * np.float32(1.25), r, phi, (8.5, 2.0, way), 6.2),
        ]
        parts += [_ball(s, r, phi, at, radius) for at, radius in bumps]
        found = _highest(*parts)
        return found * np.float32(1.3), found

    return Particle("ribosome", (-13, 15, 14), shape)


def globule(rng: np.random.Generator) -> Particle:
    """A free complex of 6 to 16 nm: a few balls, or a hollow barrel."""
    if rng.random() < 0.3:
        radius, length = float(rng.uniform(5.5, 7.5)), float(rng.uniform(5, 9))

        def barrel(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
            found = _tube(s, r, -length, length, radius - 3.8, radius)
            return found, found

        return Particle("protein", (-length - 2, length + 2, radius + 2), barrel)
    balls = [
        (
            (float(rng.uniform(-4, 4)), float(rng.uniform(0, 4)), float(rng.uniform(0, 2 * np.pi))),
            float(rng.uniform(2, 4.5)),
        )
        for _ in range(int(rng.integers(1, 5)))
    ]

    def cluster(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        found = _highest(*[_ball(s, r, phi, at, radius) for at, radius in balls])
        return found, found

    return Particle("protein", (-10, 10, 10), cluster)


def membrane_protein(rng: np.random.Generator, level_nm: float, outward: bool) -> Particle:
    """A complex in one membrane: a plug with a soluble head, a pore, or a head on a stalk.

    Parameters
    ----------
    rng
        Source of its kind and sizes.
    level_nm
        Height s of the membrane's middle.
    outward
        Whether its head points out of the cell.
    """
    sign = 1.0 if outward else -1.0
    radius = float(rng.uniform(2, 4.5))
    head, height = float(rng.uniform(2.5, 5.5)), float(rng.uniform(2, 9))
    style = rng.choice(["plug", "pore", "stalk"], p=[0.6, 0.2, 0.2])

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        local = (s - np.float32(level_nm)) * np.float32(sign)
        if style == "pore":
            outer = radius + 2.5
            found = _tube(local, r, -3, 3 + height / 2, 1.8, outer)
            return found, _highest(_tube(local, r, -3, 3, 0, outer), found)
        if style == "stalk":
            # The F-type ATP synthase: a 10 nm head on a stalk.
            found = _highest(
                _tube(local, r, -3, 3, 0, 3.2),
                _tube(local, r, 0, 8, 0, 1.5),
                _ball(local, r, phi, (12.0, 0.0, 0.0), 5.0),
            )
            return found, found
        found = _highest(
            _tube(local, r, -3, 3, 0, radius), _ball(local, r, phi, (2 + height / 2, 0.0, 0.0), head)
        )
        return found, found

    reach = 20.0
    return Particle("membrane_protein", (level_nm - reach, level_nm + reach, 10.0), shape)


def gold_bead(diameter_nm: float) -> Particle:
    """A gold fiducial, ten times as dense as protein."""
    radius = diameter_nm / 2

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        found = _below(np.hypot(s, r), radius)
        return found * np.float32(10), found

    return Particle("gold_bead", (-radius - 2, radius + 2, radius + 2), shape)
