"""Another simulator of minicells with T3SS, independent of the package's own in code and in most choices.

Cells are ellipsoids. Particles are sums of soft tubes, added to the membranes. Projections are sums through a
rotated volume, with one contrast transfer function and Gaussian noise of a given signal-to-noise ratio. The
reconstruction uses a ramp filter and linear interpolation. Models that overfit their own simulator fail here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import expit

from t3ssfast.candidates import Candidates
from t3ssfast.tomogram import Tomogram

Array = npt.NDArray[Any]
# (r, h, phi) in nm and radians about an axis -> density.
Density = Callable[[Array, Array, Array], Array]

# 300 kV.
WAVELENGTH_NM = 0.00197
SPHERICAL_ABERRATION_NM = 2.7e6
AMPLITUDE_CONTRAST = 0.08


@dataclass(frozen=True)
class OtherTomogram:
    """A simulated tomogram and its ground truth; protein is dark unless it was inverted."""

    tomogram: Tomogram
    truth: Candidates
    membrane: npt.NDArray[np.bool_]


def soft(distance: Array, width: float = 0.8) -> Array:
    return np.asarray(expit(distance / width))


def gaussian(distance: Array, sigma: float) -> Array:
    return np.asarray(np.exp(-0.5 * (distance / sigma) ** 2))


def tube(r: Array, h: Array, inner: float, outer: float, low: float, high: float) -> Array:
    return np.asarray(soft(r - inner) * soft(outer - r) * soft(h - low) * soft(high - h))


def bilayer(distance: Array) -> Array:
    return gaussian(distance - 2, 1) + gaussian(distance + 2, 1) - 0.1 * gaussian(distance, 0.8)


def t3ss(gap: float, needle: float, scale: float) -> Density:
    def density(r: Array, h: Array, phi: Array) -> Array:
        r, h, half = r / scale, h / scale, gap / 2
        parts = tube(r, h, 5, 13, -half - 5, -half + 5)
        parts += 0.9 * tube(r, h, 3.5, 9, -half + 4, half - 6)
        parts += tube(r, h, 4, 10, half - 7, half + 3)
        parts += 0.7 * tube(r, h, 1, 4, -half - 12, -half - 4)
        parts += 0.9 * tube(r, h, 0, 6, -half - 28, -half - 20)
        if needle:
            parts += tube(r, h, 1.2, 3.8, -half - 2, half + needle)
        for pod in np.arange(6) * np.pi / 3:
            across = np.hypot(r * np.cos(phi) - 16 * np.cos(pod), r * np.sin(phi) - 16 * np.sin(pod))
            parts += gaussian(across, 2.8) * gaussian(h + half + 20, 5)
        return np.asarray(parts)

    return density


def flagellar_motor(gap: float) -> Density:
    def density(r: Array, h: Array, phi: Array) -> Array:
        half = gap / 2
        return np.asarray(
            tube(r, h, 14, 23, -half - 22, -half - 8)
            + tube(r, h, 6, 15, -half - 6, -half + 5)
            + tube(r, h, 0, 6, -half - 4, half + 60)
            + 0.9 * tube(r, h, 6, 12, half - 10, half + 4)
            + 0.5 * tube(r, h, 16, 22, -half, half - 10)
        )

    return density


def ball(radius: float, height: float = 1.0, waves: tuple[float, float] = (0.0, 0.0)) -> Density:
    """A ball, with uneven density if `waves` (phases) are given."""

    def density(r: Array, h: Array, phi: Array) -> Array:
        uneven = 1 + 0.4 * np.sin(0.9 * r + waves[0]) * np.cos(0.8 * h + waves[1]) * bool(any(waves))
        return np.asarray(height * soft(radius - np.hypot(r, h), 1.2) * uneven)

    return density


@dataclass
class Specimen:
    """A specimen under construction; positions are in nm."""

    shape: tuple[int, int, int]
    voxel_nm: float
    rng: np.random.Generator
    density: Array = field(init=False)
    membrane: npt.NDArray[np.bool_] = field(init=False)
    occupied: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape, np.float32)
        self.membrane, self.occupied = np.zeros(self.shape, bool), np.zeros(self.shape, bool)

    @property
    def size(self) -> Array:
        return np.array(self.shape) * self.voxel_nm

    def axes(self, box: tuple[slice, ...] = (slice(None),) * 3) -> list[Array]:
        return list(np.ix_(*(np.arange(n)[b] * self.voxel_nm for n, b in zip(self.shape, box, strict=True))))

    def distance(self, centre: Array, radii: Array) -> Array:
        """Distance from the surface of an ellipsoid, to first order; negative inside."""
        offset = [a - c for a, c in zip(self.axes(), centre, strict=True)]
        level = np.sqrt(sum((a / r) ** 2 for a, r in zip(offset, radii, strict=True))) + 1e-6
        slope = np.sqrt(sum((a / r**2) ** 2 for a, r in zip(offset, radii, strict=True))) / level + 1e-6
        return np.asarray((level - 1) / slope, np.float32)

    def put(self, density: Density, centre: Array, axis: Array, reach: float) -> None:
        low = np.clip(np.floor((centre - reach) / self.voxel_nm).astype(int), 0, self.shape)
        high = np.clip(np.ceil((centre + reach) / self.voxel_nm).astype(int) + 1, 0, self.shape)
        if (low >= high).any():
            return
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        first = np.cross(axis, [1, 0, 0] if abs(axis[0]) < 0.9 else [0, 1, 0])
        first /= np.linalg.norm(first)
        second = np.cross(axis, first)
        z, y, x = (a - c for a, c in zip(self.axes(box), centre, strict=True))
        h, u, v = (z * n[0] + y * n[1] + x * n[2] for n in (axis, first, second))
        self.density[box] += density(np.hypot(u, v), h, np.arctan2(v, u)).astype(np.float32)


def unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


def add_cell(specimen: Specimen, n_t3ss: int) -> list[tuple[Array, Array]]:
    """Add a cell with its particles, if it fits; return centres (nm) and axes of its T3SS."""
    rng, size = specimen.rng, specimen.size
    for _ in range(50):
        radii = rng.uniform(85, 140) * np.array(
            [rng.uniform(0.6, 1), rng.uniform(0.9, 1.3), rng.uniform(0.8, 1)]
        )
        centre = size * np.array([rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85)])
        gap = rng.uniform(24, 30)
        distance = specimen.distance(centre, radii)
        if not (specimen.occupied & (distance < gap + 15)).any():
            break
    else:
        return []
    specimen.occupied |= distance < gap + 10
    specimen.membrane |= (np.abs(distance) < 2.5) | (np.abs(distance - gap) < 2.5)
    specimen.density += bilayer(distance) + bilayer(distance - gap)
    specimen.density += 0.12 * soft(-distance, 2) + 0.06 * soft(distance) * soft(gap - distance)
    crowding = 0.35 * rng.standard_normal(specimen.shape, dtype=np.float32)
    specimen.density += np.where(distance < -4, crowding, 0)
    taken: list[tuple[Array, float]] = []

    def sites(count: int, space: float, margin: float) -> list[tuple[Array, Array]]:
        """Free positions in the middle of the envelope, with normals, uniform over the visible surface."""
        found: list[tuple[Array, Array]] = []
        for _ in range(200 * count):
            if len(found) == count:
                break
            direction = unit(rng.standard_normal(3))
            if rng.random() > np.linalg.norm(direction / radii) * radii.min():
                continue
            normal = unit(direction / radii)
            site = centre + direction * radii + normal * gap / 2
            near = any(np.linalg.norm(site - other) < (space + theirs) / 2 + 2 for other, theirs in taken)
            if near or (site < margin).any() or (site > size - margin).any():
                continue
            taken.append((site, space))
            found.append((site, normal))
        return found

    placed = []
    for site, normal in sites(n_t3ss, 42, 10):
        axis = unit(normal + 0.06 * rng.standard_normal(3))
        needle = rng.uniform(40, 65) if rng.random() > 0.15 else 0.0
        specimen.put(t3ss(gap, needle, rng.normal(1, 0.04)), site, axis, gap / 2 + 70)
        placed.append((site, axis))
    for site, normal in sites(2, 50, 10):
        specimen.put(flagellar_motor(gap), site, normal, gap / 2 + 70)
    for site, normal in sites(12, 26, 5):
        ribosome = ball(11.5, waves=tuple(rng.uniform(0, 6, 2)))
        specimen.put(ribosome, site - normal * (gap / 2 + 14), normal, 16)
    for site, normal in sites(30, 12, 3):
        specimen.put(ball(4), site + normal * (gap / 2 * rng.choice([-1, 1]) + 3), normal, 9)
    inside = np.argwhere(distance < -18)
    for voxel in inside[rng.choice(len(inside), int(rng.uniform(20, 60)))]:
        axis = unit(rng.standard_normal(3))
        ribosome = ball(11.5, waves=tuple(rng.uniform(0, 6, 2)))
        specimen.put(ribosome, voxel * specimen.voxel_nm, axis, 16)
    return placed


def add_vesicle(specimen: Specimen) -> None:
    rng = specimen.rng
    for _ in range(50):
        radii = rng.uniform(20, 70) * rng.uniform(0.85, 1.1, 3)
        distance = specimen.distance(rng.uniform(0, 1, 3) * specimen.size, radii)
        if not (specimen.occupied & (distance < 8)).any():
            specimen.occupied |= distance < 8
            specimen.membrane |= np.abs(distance) < 2.5
            specimen.density += bilayer(distance)
            return


def image(
    density: Array,
    voxel_nm: float,
    rng: np.random.Generator,
    *,
    defocus_um: float,
    signal_to_noise: float,
    tilt_range: float,
    tilt_step: float,
    phase_flip: bool,
) -> npt.NDArray[np.float32]:
    """Simulate a tilt series about y and reconstruct it; protein is dark."""
    depth, height, width = density.shape
    volume = torch.from_numpy(density)[None, None]
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    square = (fy**2 + fx**2) / voxel_nm**2
    ramp = 2 * fx.clamp_min(0.01) * torch.cos(0.8 * np.pi * fx) * torch.cos(0.8 * np.pi * fy.abs())
    z, x = torch.arange(depth)[:, None] - (depth - 1) / 2, torch.arange(width)[None] - (width - 1) / 2
    reconstruction = torch.zeros(density.shape)
    for degrees in np.arange(-tilt_range, tilt_range + 0.1, tilt_step):
        angle = np.radians(degrees + rng.normal(0, 0.15))
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        matrix = [[cos, 0, sin * depth / width, 0], [0, 1, 0, 0], [-sin * width / depth, 0, cos, 0]]
        grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float32), list(volume.shape), False)
        projection = F.grid_sample(volume, grid, align_corners=False)[0, 0].sum(0) * voxel_nm
        defocus = 1e3 * (defocus_um + rng.normal(0, 0.15))
        phase = np.pi * WAVELENGTH_NM * defocus * square
        phase = phase - np.pi / 2 * SPHERICAL_ABERRATION_NM * WAVELENGTH_NM**3 * square**2
        transfer = torch.sin(phase + np.arcsin(AMPLITUDE_CONTRAST))
        transfer = transfer.abs() if phase_flip else transfer
        transfer = transfer * torch.exp(-rng.uniform(2, 8) * square)
        projection = -torch.fft.irfft2(torch.fft.rfft2(projection) * transfer, s=(height, width))
        noise = torch.from_numpy(rng.standard_normal((height, width), dtype=np.float32))
        projection = projection + noise * projection.std() / (signal_to_noise * cos) ** 0.5
        projection = torch.fft.irfft2(torch.fft.rfft2(projection) * ramp, s=(height, width))
        position = cos * x - sin * z + rng.normal(0, 0.5) / voxel_nm + (width - 1) / 2
        left = position.floor().long().clamp(0, width - 2)
        share = (position - left).clamp(0, 1)
        inside = ((position >= 0) & (position <= width - 1)).float()
        near = [projection[:, (left + k).reshape(-1)].reshape(height, depth, width) for k in (0, 1)]
        reconstruction += ((near[0] * (1 - share) + near[1] * share) * inside).permute(1, 0, 2)
    return np.asarray(reconstruction / reconstruction.std(), np.float32)


def other_tomogram(
    seed: int,
    *,
    shape: tuple[int, int, int] = (160, 288, 288),
    voxel_nm: float = 1.2,
    cells: int = 2,
    t3ss_per_cell: int = 10,
    vesicles: int = 2,
    gold: int = 4,
    inverted: bool = False,
    defocus_um: float = 5.0,
    signal_to_noise: float = 0.4,
    tilt_range: float = 60.0,
    tilt_step: float = 3.0,
    phase_flip: bool = False,
) -> OtherTomogram:
    """Simulate a tomogram; the signal-to-noise ratio is that of the variances in an untilted projection."""
    rng = np.random.default_rng(seed)
    specimen = Specimen(shape, voxel_nm, rng)
    placed = [one for _ in range(cells) for one in add_cell(specimen, t3ss_per_cell)]
    for _ in range(vesicles):
        add_vesicle(specimen)
    for _ in range(gold):
        specimen.put(ball(5, 8.0), rng.uniform(0, 1, 3) * specimen.size, np.array([1.0, 0, 0]), 9)
    data = image(
        specimen.density,
        voxel_nm,
        rng,
        defocus_um=defocus_um,
        signal_to_noise=signal_to_noise,
        tilt_range=tilt_range,
        tilt_step=tilt_step,
        phase_flip=phase_flip,
    )
    centre = np.array([site for site, _ in placed], np.float32).reshape(-1, 3) / voxel_nm
    axis = np.array([axis for _, axis in placed], np.float32).reshape(-1, 3)
    name, size, score = f"other_{seed}", 10 * voxel_nm, np.ones(len(centre), np.float32)
    return OtherTomogram(
        Tomogram(-data if inverted else data, size, name),
        Candidates(centre.astype(np.float32), score, axis, size, shape, name),
        specimen.membrane,
    )
