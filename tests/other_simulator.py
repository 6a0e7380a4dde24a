"""Another simulator of minicells with T3SS, which shares no code and few choices with the package's own.

Cells are ellipsoids, machines sums of soft tubes that add to the membranes; projections are sums through a
rotated volume, with one contrast transfer function and Gaussian noise of a given signal-to-noise ratio;
reconstruction is a ramp and linear interpolation. Models that know only their own simulator fail here.
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

WAVELENGTH_NM = 0.00197
SPHERICAL_NM = 2.7e6
AMPLITUDE = 0.08


@dataclass(frozen=True)
class OtherTomogram:
    """What was made: protein is dark unless it was inverted."""

    tomogram: Tomogram
    truth: Candidates
    membrane: npt.NDArray[np.bool_]


def soft(distance: Array, width: float = 0.8) -> Array:
    return np.asarray(expit(distance / width))


def bump(distance: Array, sigma: float) -> Array:
    return np.asarray(np.exp(-0.5 * (distance / sigma) ** 2))


def tube(r: Array, h: Array, inner: float, outer: float, low: float, high: float) -> Array:
    return np.asarray(soft(r - inner) * soft(outer - r) * soft(h - low) * soft(high - h))


def bilayer(distance: Array) -> Array:
    return bump(distance - 2, 1) + bump(distance + 2, 1) - 0.1 * bump(distance, 0.8)


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
            parts += bump(across, 2.8) * bump(h + half + 20, 5)
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
    """A ball, its inside uneven where waves are given."""

    def density(r: Array, h: Array, phi: Array) -> Array:
        uneven = 1 + 0.4 * np.sin(0.9 * r + waves[0]) * np.cos(0.8 * h + waves[1]) * bool(any(waves))
        return np.asarray(height * soft(radius - np.hypot(r, h), 1.2) * uneven)

    return density


@dataclass
class Specimen:
    """A volume of density, in nm, that things are put into."""

    shape: tuple[int, int, int]
    voxel_nm: float
    rng: np.random.Generator
    density: Array = field(init=False)
    membrane: npt.NDArray[np.bool_] = field(init=False)
    taken: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape, np.float32)
        self.membrane = np.zeros(self.shape, bool)
        self.taken = np.zeros(self.shape, bool)

    @property
    def size(self) -> Array:
        return np.array(self.shape) * self.voxel_nm

    def axes(self, box: tuple[slice, ...] = (slice(None),) * 3) -> list[Array]:
        return list(np.ix_(*(np.arange(n)[b] * self.voxel_nm for n, b in zip(self.shape, box, strict=True))))

    def distance(self, centre: Array, radii: Array) -> Array:
        """From the surface of an ellipsoid, to first order; negative inside."""
        away = [a - c for a, c in zip(self.axes(), centre, strict=True)]
        level = np.sqrt(sum((a / r) ** 2 for a, r in zip(away, radii, strict=True))) + 1e-6
        slope = np.sqrt(sum((a / r**2) ** 2 for a, r in zip(away, radii, strict=True))) / level + 1e-6
        return np.asarray((level - 1) / slope, np.float32)

    def put(self, density: Density, at: Array, axis: Array, reach: float) -> None:
        low = np.clip(np.floor((at - reach) / self.voxel_nm).astype(int), 0, self.shape)
        high = np.clip(np.ceil((at + reach) / self.voxel_nm).astype(int) + 1, 0, self.shape)
        if (low >= high).any():
            return
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        first = np.cross(axis, [1, 0, 0] if abs(axis[0]) < 0.9 else [0, 1, 0])
        first /= np.linalg.norm(first)
        second = np.cross(axis, first)
        z, y, x = (a - c for a, c in zip(self.axes(box), at, strict=True))
        h, u, v = (z * n[0] + y * n[1] + x * n[2] for n in (axis, first, second))
        self.density[box] += density(np.hypot(u, v), h, np.arctan2(v, u)).astype(np.float32)


def unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


def add_cell(specimen: Specimen, injectisomes: int) -> list[tuple[Array, Array]]:
    """A cell with everything on it, where there is room; its injectisomes as centres (nm) and axes."""
    rng, size = specimen.rng, specimen.size
    for _ in range(50):
        radii = rng.uniform(85, 140) * np.array(
            [rng.uniform(0.6, 1), rng.uniform(0.9, 1.3), rng.uniform(0.8, 1)]
        )
        centre = size * np.array([rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85)])
        gap = rng.uniform(24, 30)
        distance = specimen.distance(centre, radii)
        if not (specimen.taken & (distance < gap + 15)).any():
            break
    else:
        return []
    specimen.taken |= distance < gap + 10
    specimen.membrane |= (np.abs(distance) < 2.5) | (np.abs(distance - gap) < 2.5)
    specimen.density += bilayer(distance) + bilayer(distance - gap)
    specimen.density += 0.12 * soft(-distance, 2) + 0.06 * soft(distance) * soft(gap - distance)
    crowd = 0.35 * rng.standard_normal(specimen.shape, dtype=np.float32)
    specimen.density += np.where(distance < -4, crowd, 0)
    placed: list[tuple[Array, float]] = []

    def sites(count: int, room: float, margin: float) -> list[tuple[Array, Array]]:
        """Middles of the envelope and normals, evenly over the surface that is in the volume."""
        found: list[tuple[Array, Array]] = []
        for _ in range(200 * count):
            if len(found) == count:
                break
            way = unit(rng.standard_normal(3))
            if rng.random() > np.linalg.norm(way / radii) * radii.min():
                continue
            normal = unit(way / radii)
            at = centre + way * radii + normal * gap / 2
            near = any(np.linalg.norm(at - other) < (room + apart) / 2 + 2 for other, apart in placed)
            if near or (at < margin).any() or (at > size - margin).any():
                continue
            placed.append((at, room))
            found.append((at, normal))
        return found

    machines = []
    for at, normal in sites(injectisomes, 42, 10):
        axis = unit(normal + 0.06 * rng.standard_normal(3))
        needle = rng.uniform(40, 65) if rng.random() > 0.15 else 0.0
        specimen.put(t3ss(gap, needle, rng.normal(1, 0.04)), at, axis, gap / 2 + 70)
        machines.append((at, axis))
    for at, normal in sites(2, 50, 10):
        specimen.put(flagellar_motor(gap), at, normal, gap / 2 + 70)
    for at, normal in sites(12, 26, 5):
        specimen.put(ball(11.5, waves=tuple(rng.uniform(0, 6, 2))), at - normal * (gap / 2 + 14), normal, 16)
    for at, normal in sites(30, 12, 3):
        specimen.put(ball(4), at + normal * (gap / 2 * rng.choice([-1, 1]) + 3), normal, 9)
    inside = np.argwhere(distance < -18)
    for at in inside[rng.choice(len(inside), int(rng.uniform(20, 60)))]:
        way = unit(rng.standard_normal(3))
        specimen.put(ball(11.5, waves=tuple(rng.uniform(0, 6, 2))), at * specimen.voxel_nm, way, 16)
    return machines


def add_vesicle(specimen: Specimen) -> None:
    rng = specimen.rng
    for _ in range(50):
        radii = rng.uniform(20, 70) * rng.uniform(0.85, 1.1, 3)
        distance = specimen.distance(rng.uniform(0, 1, 3) * specimen.size, radii)
        if not (specimen.taken & (distance < 8)).any():
            specimen.taken |= distance < 8
            specimen.membrane |= np.abs(distance) < 2.5
            specimen.density += bilayer(distance)
            return


def imaged(
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
    """Projected about the y axis, blurred, spoilt and put together again; protein is dark."""
    depth, height, width = density.shape
    volume = torch.from_numpy(density)[None, None]
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    square = (fy**2 + fx**2) / voxel_nm**2
    ramp = 2 * fx.clamp_min(0.01) * torch.cos(0.8 * np.pi * fx) * torch.cos(0.8 * np.pi * fy.abs())
    z, x = (
        torch.arange(depth)[:, None] - (depth - 1) / 2,
        torch.arange(width)[None] - (width - 1) / 2,
    )
    sum_of_all = torch.zeros(density.shape)
    for degrees in np.arange(-tilt_range, tilt_range + 0.1, tilt_step):
        angle = np.radians(degrees + rng.normal(0, 0.15))
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        turn = [[cos, 0, sin * depth / width, 0], [0, 1, 0, 0], [-sin * width / depth, 0, cos, 0]]
        grid = F.affine_grid(torch.tensor([turn], dtype=torch.float32), list(volume.shape), False)
        image = F.grid_sample(volume, grid, align_corners=False)[0, 0].sum(0) * voxel_nm
        defocus = 1e3 * (defocus_um + rng.normal(0, 0.15))
        phase = np.pi * WAVELENGTH_NM * defocus * square
        phase = phase - np.pi / 2 * SPHERICAL_NM * WAVELENGTH_NM**3 * square**2
        transfer = torch.sin(phase + np.arcsin(AMPLITUDE))
        transfer = transfer.abs() if phase_flip else transfer
        transfer = transfer * torch.exp(-rng.uniform(2, 8) * square)
        image = -torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=(height, width))
        noise = torch.from_numpy(rng.standard_normal((height, width), dtype=np.float32))
        image = image + noise * image.std() / (signal_to_noise * cos) ** 0.5
        image = torch.fft.irfft2(torch.fft.rfft2(image) * ramp, s=(height, width))
        shift = rng.normal(0, 0.5) / voxel_nm
        place = cos * x - sin * z + shift + (width - 1) / 2
        left = place.floor().long().clamp(0, width - 2)
        share = (place - left).clamp(0, 1)
        seen = ((place >= 0) & (place <= width - 1)).float()
        flat = [image[:, (left + k).reshape(-1)].reshape(height, depth, width) for k in (0, 1)]
        sum_of_all += ((flat[0] * (1 - share) + flat[1] * share) * seen).permute(1, 0, 2)
    return np.asarray(sum_of_all / sum_of_all.std(), np.float32)


def other_tomogram(
    seed: int,
    *,
    shape: tuple[int, int, int] = (160, 288, 288),
    voxel_nm: float = 1.2,
    cells: int = 2,
    injectisomes: int = 10,
    vesicles: int = 2,
    gold: int = 4,
    inverted: bool = False,
    defocus_um: float = 5.0,
    signal_to_noise: float = 0.4,
    tilt_range: float = 60.0,
    tilt_step: float = 3.0,
    phase_flip: bool = False,
) -> OtherTomogram:
    """One tomogram; the signal-to-noise ratio is that of the variances in an untilted projection."""
    rng = np.random.default_rng(seed)
    specimen = Specimen(shape, voxel_nm, rng)
    machines = [one for _ in range(cells) for one in add_cell(specimen, injectisomes)]
    for _ in range(vesicles):
        add_vesicle(specimen)
    for _ in range(gold):
        specimen.put(ball(5, 8.0), rng.uniform(0, 1, 3) * specimen.size, np.array([1.0, 0, 0]), 9)
    data = imaged(
        specimen.density,
        voxel_nm,
        rng,
        defocus_um=defocus_um,
        signal_to_noise=signal_to_noise,
        tilt_range=tilt_range,
        tilt_step=tilt_step,
        phase_flip=phase_flip,
    )
    centre = np.array([at for at, _ in machines], np.float32).reshape(-1, 3) / voxel_nm
    axis = np.array([way for _, way in machines], np.float32).reshape(-1, 3)
    name = f"other_{seed}"
    return OtherTomogram(
        Tomogram(-data if inverted else data, 10 * voxel_nm, name),
        Candidates(
            centre.astype(np.float32), np.ones(len(centre), np.float32), axis, 10 * voxel_nm, shape, name
        ),
        specimen.membrane,
    )
