"""Soft-edged shapes in cylindrical coordinates, from which particles are built.

s is the height along the particle's axis, r the distance from it and phi the angle about it. Lengths are in
nm. Densities are relative to ice (0), in units of protein (1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

__all__ = ["Float32", "Particle", "ball", "below", "between", "tube", "union"]

Float32 = npt.NDArray[np.float32]

EDGE_NM = 1.6  # Width of soft edges. Sharper ones would alias at the usual 1 to 2 nm per voxel.


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
