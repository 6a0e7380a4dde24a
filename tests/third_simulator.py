"""A third simulator of minicells with T3SS, unlike the package's own and the one of `other_simulator`.

Cells are capsules. Particles are soft surfaces of revolution, given by profiles with published radii, and
pods. Nothing is projected: the volume's Fourier transform is multiplied by the transfer function and cut to
the range of the tilts. Noise is heavy-tailed and stronger at low frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.tomogram import Tomogram

Array = npt.NDArray[Any]
# Height (nm) above the middle of the periplasm and radius (nm) of the points of a surface.
Profile = tuple[tuple[float, float], ...]

WAVELENGTH_NM = 0.00197
GAP_NM = 26.0
LEAFLET_NM = 1.9
# Profiles and half-widths of a T3SS: inner ring, neck, outer ring, needle, export gate, hub.
T3SS: tuple[tuple[Profile, float], ...] = (
    (((-17, 8), (-16, 12.5), (-11, 12.5), (-9, 6)), 2.2),
    (((-9, 5.5), (6, 5.5)), 2.2),
    (((5, 6), (8, 9), (14, 8), (16, 5)), 2.2),
    (((16, 2.8), (58, 2.8)), 1.3),
    (((-29, 4.5), (-24, 5), (-19, 3)), 1.8),
    (((-39, 0), (-35, 3.5)), 2.4),
)
# A motor: C-ring, MS-ring, rod, P- and L-ring, hook.
MOTOR: tuple[tuple[Profile, float], ...] = (
    (((-36, 21), (-24, 22), (-20, 18)), 3.0),
    (((-17, 4), (-15, 14), (-12, 14)), 2.4),
    (((-12, 4), (14, 4)), 2.4),
    (((4, 11), (15, 12)), 2.4),
    (((15, 7), (65, 7)), 2.6),
)
POD_RADIUS_NM, POD_HEIGHT_NM = 16.0, -33.0


@dataclass(frozen=True)
class ThirdTomogram:
    """A simulated tomogram, dark protein, and its T3SS."""

    tomogram: Tomogram
    truth: Candidates


def _surface(height: Array, radius: Array, profile: Profile, width: float) -> Array:
    """Density of a soft surface of revolution: it falls off with the distance from its profile."""
    nearest = np.full(height.shape, np.inf)
    for (h0, r0), (h1, r1) in pairwise(profile):
        length = (h1 - h0) ** 2 + (r1 - r0) ** 2
        along = np.clip(((height - h0) * (h1 - h0) + (radius - r0) * (r1 - r0)) / length, 0, 1)
        squared = (height - h0 - along * (h1 - h0)) ** 2 + (radius - r0 - along * (r1 - r0)) ** 2
        nearest = np.minimum(nearest, squared)
    return np.asarray(np.exp(-nearest / width**2))


def _add(density: Array, voxel_nm: float, centre: Array, axis: Array, parts: Any, pods: bool) -> None:
    reach = 72.0
    low = np.maximum(np.floor((centre - reach) / voxel_nm).astype(int), 0)
    high = np.minimum(np.ceil((centre + reach) / voxel_nm).astype(int) + 1, density.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    offset = np.moveaxis(np.mgrid[box], 0, -1) * voxel_nm - centre
    first = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.8 else [0, 1.0, 0])
    first /= np.linalg.norm(first)
    h, u, v = (offset @ direction for direction in (axis, first, np.cross(axis, first)))
    added = sum(_surface(h, np.hypot(u, v), profile, width) for profile, width in parts)
    for angle in np.arange(6) * np.pi / 3 if pods else ():
        squared = (u - POD_RADIUS_NM * np.cos(angle)) ** 2 + (v - POD_RADIUS_NM * np.sin(angle)) ** 2
        added = added + np.exp(-squared / 3.2**2 - ((h - POD_HEIGHT_NM) / 7) ** 2)
    density[box] += added


def _image(
    density: Array, voxel_nm: float, rng: np.random.Generator, defocus_um: float, noise: float
) -> Array:
    """Blur and cut the volume in Fourier space, and add noise; protein is dark."""
    kz, ky, kx = (
        np.fft.fftfreq(n, voxel_nm).reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, n in enumerate(density.shape)
    )
    squared = kz**2 + ky**2 + kx**2
    tilt = np.degrees(np.arctan2(np.abs(kz), np.abs(kx) + 1e-12))
    measured = 1 / (1 + np.exp((tilt - 58) / 0.7))
    measured[0, 0, 0] = 0
    transfer = np.sin(np.pi * WAVELENGTH_NM * defocus_um * 1e3 * squared + 0.09) * np.exp(-4 * squared)
    signal = np.fft.ifftn(np.fft.fftn(density) * transfer * measured).real
    white = np.fft.fftn(rng.laplace(size=density.shape))
    coloured = np.fft.ifftn(white * measured * (1 + 1.5 / (1 + squared / 0.02**2))).real
    return np.asarray(-signal / signal.std() + noise * coloured / coloured.std(), np.float32)


def third_tomogram(
    seed: int,
    shape: tuple[int, int, int] = (96, 176, 176),
    *,
    voxel_nm: float = 1.36,
    t3ss: int = 8,
    motors: int = 2,
    defocus_um: float = 5.0,
    noise: float = 1.2,
) -> ThirdTomogram:
    """A capsule across the volume with particles on its sides, ribosomes in it, and receptors beside it."""
    rng = np.random.default_rng(seed)
    size = np.array(shape) * voxel_nm
    middle = size * rng.uniform(0.45, 0.55, 3)
    direction = np.array([0.0, *rng.normal(size=2)])
    direction /= np.linalg.norm(direction)
    radius = rng.uniform(62, 78)
    ends = [middle - 55 * direction, middle + 55 * direction]
    grid = np.moveaxis(np.indices(shape), 0, -1) * voxel_nm
    along = np.clip((grid - middle) @ direction, -55, 55)
    distance = np.linalg.norm(grid - middle - along[..., None] * direction, axis=-1) - radius
    density = sum(
        np.exp(-(((distance - membrane - leaflet) / 1.1) ** 2))
        for membrane in (-GAP_NM / 2, GAP_NM / 2)
        for leaflet in (-LEAFLET_NM, LEAFLET_NM)
    )
    density += np.where(distance < -GAP_NM / 2, 0.15 + 0.3 * rng.normal(size=shape), 0)
    centres: list[Array] = []
    axes: list[Array] = []
    while len(centres) < t3ss + motors:
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        base = middle + rng.uniform(-55, 55) * direction
        if len(centres) % 2:
            base, axis = ends[int(axis @ direction > 0)], axis
        else:
            axis -= (axis @ direction) * direction
            axis /= np.linalg.norm(axis)
        centre = base + radius * axis
        apart = all(np.linalg.norm(centre - other) > 45 for other in centres)
        if apart and (centre > 12).all() and (centre < size - 12).all():
            centres.append(centre)
            axes.append(axis)
    for k, (centre, axis) in enumerate(zip(centres, axes, strict=True)):
        _add(density, voxel_nm, centre, axis, T3SS if k < t3ss else MOTOR, pods=k < t3ss)
    inside = np.argwhere(distance < -GAP_NM / 2 - 14)
    for voxel in inside[rng.choice(len(inside), 25)]:
        low = np.maximum(voxel - 9, 0)
        part = density[tuple(slice(a, b) for a, b in zip(low, voxel + 10, strict=True))]
        squared = sum(
            ((np.arange(n) + a - c).reshape([-1 if i == axis else 1 for i in range(3)]) * voxel_nm) ** 2
            for axis, (n, a, c) in enumerate(zip(part.shape, low, voxel, strict=True))
        )
        part += 1 / (1 + np.exp((np.sqrt(squared) - 11) / 1.0))
    data = _image(np.asarray(density, np.float64), voxel_nm, rng, defocus_um, noise)
    truth = Candidates(
        np.array(centres[:t3ss]) / voxel_nm,
        np.ones(t3ss, np.float32),
        np.array(axes[:t3ss]),
        voxel_nm * 10,
        shape,
        f"third_{seed}",
    )
    return ThirdTomogram(Tomogram(data, voxel_nm * 10, f"third_{seed}"), truth)
