"""Soft-edged shapes in cylindrical coordinates, and look-alikes of the T3SS made of them, of random sizes.

s is the height along the particle's axis, r the distance from it and phi the angle about it. Lengths are in
nm, densities relative to ice (0), in units of protein (1). `gap_nm` is the distance between the membranes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

__all__ = [
    "Float32",
    "Particle",
    "ball",
    "below",
    "between",
    "chemoreceptor_patch",
    "globule",
    "gold_bead",
    "membrane_protein",
    "ribosome",
    "secretin",
    "tube",
    "union",
]

Float32 = npt.NDArray[np.float32]
Range = tuple[float, float]

EDGE_NM = 1.6  # Width of soft edges. Sharper ones would alias at the usual 1 to 2 nm per voxel.
# Density of gold and of a ribosome with its RNA, relative to protein.
GOLD_DENSITY = np.float32(10)
RIBOSOME_DENSITY = np.float32(1.3)
CHEMORECEPTOR_LATTICE_NM = 12.0  # Lattice constant of chemoreceptor arrays (Briegel et al. 2009).


@dataclass(frozen=True)
class Particle:
    """A particle with its origin half-way between the membranes, or at its centre if it floats freely."""

    kind: str  # Label, such as "t3ss".
    extent_nm: tuple[float, float, float]  # Lowest s, highest s and largest r of its density.
    # (s, r, phi) -> density, and the fraction, 0 to 1, of membrane and solvent that the particle replaces.
    density: Callable[[Float32, Float32, Float32], tuple[Float32, Float32]]


def below(value: Float32, edge: float) -> Float32:
    """Return 1 where value < edge and 0 above, with a soft edge."""
    return np.asarray(np.clip(np.float32(0.5) - (value - np.float32(edge)) / np.float32(EDGE_NM), 0, 1))


def between(value: Float32, low: float, high: float) -> Float32:
    """Return 1 where low < value < high and 0 elsewhere, with soft edges."""
    return below(value, high) * below(-value, -low)


def tube(s: Float32, r: Float32, low: float, high: float, inner: float, outer: float) -> Float32:
    """Return a tube from height `low` to `high` between two radii; solid if `inner` <= 0."""
    wall = below(r, outer) if inner <= 0 else between(r, inner, outer)
    return wall * between(s, low, high)


def ball(s: Float32, r: Float32, phi: Float32, centre: tuple[float, float, float], radius: float) -> Float32:
    """Return a ball centred at (s, r, phi)."""
    height, lateral, angle = map(np.float32, centre)
    across = r * r + np.float32(centre[1] ** 2) - 2 * lateral * r * np.cos(phi - angle)
    return below(np.sqrt(np.maximum(across + (s - height) ** 2, 0)), radius)


def union(*parts: Float32) -> Float32:
    """Return the highest of several densities."""
    return reduce(np.maximum, parts)


def secretin(rng: np.random.Generator, gap_nm: float) -> Particle:
    """Draw a secretin of a type II secretion system or type IV pilus: a barrel at the outer membrane."""
    half = gap_nm / 2
    radius, depth = float(rng.uniform(6, 8)), float(rng.uniform(14, 22))
    pilus = float(rng.uniform(20, 90)) if rng.random() < 0.3 else 0.0
    inner_complex = rng.random() < 0.5

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        parts = [
            tube(s, r, half - depth, half + 3, 3.5, radius),
            tube(s, r, half - 5, half - 2, 0, radius) * np.float32(0.8),
        ]
        if inner_complex:
            parts.append(tube(s, r, -half - 8, -half + 5, 0, 5.5) * np.float32(0.9))
        if pilus:
            parts.append(tube(s, r, half - depth, half + pilus, 0, 2.8))
        found = union(*parts)
        return found, union(tube(s, r, half - depth, half + 3, 0, radius), found)

    return Particle("secretin", (-half - 10, half + max(3.0, pilus) + 2, radius + 2), shape)


def chemoreceptor_patch(rng: np.random.Generator, gap_nm: float) -> Particle:
    """Draw a patch of chemoreceptors: thin pillars at the inner membrane and a base plate 25 nm below it."""
    half = gap_nm / 2
    radius = float(rng.uniform(25, 55))
    plate = -half - float(rng.uniform(23, 27))

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        inside = below(r, radius)
        first, second = r * np.cos(phi), r * np.sin(phi)
        # Three waves at 120 degrees make the hexagonal lattice of the pillars.
        wave = np.float32(4 * np.pi / (np.sqrt(3) * CHEMORECEPTOR_LATTICE_NM))
        lattice = np.cos(wave * first)
        for angle in (2 * np.pi / 3, 4 * np.pi / 3):
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            lattice = lattice + np.cos(wave * cos * first + wave * sin * second)
        pillars = np.clip((lattice - np.float32(0.3)) / 2, 0, 1) * between(s, plate, -half)
        base_plate = between(s, plate - 2.5, plate + 2.5)
        found = inside * union(pillars * np.float32(0.7), base_plate * np.float32(0.7))
        return found, found

    return Particle("chemoreceptor_array", (plate - 5, -half + 2, radius + 2), shape)


def _random_balls(
    rng: np.random.Generator, count: int, height: float, lateral: Range, radius: Range
) -> list[tuple[tuple[float, float, float], float]]:
    """Draw centres (s, r, phi) and radii of balls, with -height < s < height."""
    balls = []
    for _ in range(count):
        s, r, phi = rng.uniform(-height, height), rng.uniform(*lateral), rng.uniform(0, 2 * np.pi)
        balls.append(((float(s), float(r), float(phi)), float(rng.uniform(*radius))))
    return balls


def ribosome(rng: np.random.Generator) -> Particle:
    """Draw a 70S ribosome, about 21 nm across: a large and a small subunit."""
    azimuth = rng.uniform(0, 2 * np.pi)
    bumps = _random_balls(rng, 4, 7, (5, 9), (2, 3.5))

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        large = ball(s, r, phi, (-2.5, 0.0, 0.0), 8.3)
        small = ball(s * np.float32(1.25), r, phi, (8.5, 2.0, azimuth), 6.2)
        found = union(large, small, *(ball(s, r, phi, *bump) for bump in bumps))
        return found * RIBOSOME_DENSITY, found

    return Particle("ribosome", (-13, 15, 14), shape)


def globule(rng: np.random.Generator) -> Particle:
    """Draw a free complex of 6 to 16 nm: a few balls, or a hollow barrel."""
    if rng.random() < 0.3:
        radius, length = float(rng.uniform(5.5, 7.5)), float(rng.uniform(5, 9))

        def barrel(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
            found = tube(s, r, -length, length, radius - 3.8, radius)
            return found, found

        return Particle("protein", (-length - 2, length + 2, radius + 2), barrel)
    balls = _random_balls(rng, int(rng.integers(1, 5)), 4, (0, 4), (2, 4.5))

    def cluster(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        found = union(*(ball(s, r, phi, *one) for one in balls))
        return found, found

    return Particle("protein", (-10, 10, 10), cluster)


def membrane_protein(rng: np.random.Generator, height_nm: float, outward: bool) -> Particle:
    """Draw a complex in the membrane at s = `height_nm`: a plug with a head, a pore, or a head on a stalk."""
    sign = 1.0 if outward else -1.0
    radius = float(rng.uniform(2, 4.5))
    head, length = float(rng.uniform(2.5, 5.5)), float(rng.uniform(2, 9))
    style = rng.choice(["plug", "pore", "stalk"], p=[0.6, 0.2, 0.2])

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        local = (s - np.float32(height_nm)) * np.float32(sign)
        if style == "pore":
            outer = radius + 2.5
            found = tube(local, r, -3, 3 + length / 2, 1.8, outer)
            return found, union(tube(local, r, -3, 3, 0, outer), found)
        if style == "stalk":
            # An F-type ATP synthase: a 10 nm head on a stalk.
            stalk = union(tube(local, r, -3, 3, 0, 3.2), tube(local, r, 0, 8, 0, 1.5))
            found = union(stalk, ball(local, r, phi, (12.0, 0.0, 0.0), 5.0))
        else:
            centre = (2 + length / 2, 0.0, 0.0)
            found = union(tube(local, r, -3, 3, 0, radius), ball(local, r, phi, centre, head))
        return found, found

    return Particle("membrane_protein", (height_nm - 20, height_nm + 20, 10.0), shape)


def gold_bead(diameter_nm: float) -> Particle:
    """Return a gold fiducial."""
    radius = diameter_nm / 2

    def shape(s: Float32, r: Float32, phi: Float32) -> tuple[Float32, Float32]:
        found = below(np.hypot(s, r), radius)
        return found * GOLD_DENSITY, found

    return Particle("gold_bead", (-radius - 2, radius + 2, radius + 2), shape)
