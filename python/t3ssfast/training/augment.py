"""Augmentation of training images by random geometry and random physics."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from t3ssfast.training.options import AugmentOptions

__all__ = ["Placement", "augment_values", "random_placement", "sample"]

# Radial frequencies at which the random gain is drawn; linear in between.
SPECTRUM_KNOTS = 7
# Fraction of the images that get the changes which few tomograms show.
RARE = 1 / 3


class Placement(NamedTuple):
    """Placement of an image in its source: ``source = centre + matrix @ (offset from the middle)``."""

    centre_yx: tuple[float, float]
    matrix: npt.NDArray[np.float64]


def random_placement(
    rng: np.random.Generator, centre_yx: tuple[float, float], options: AugmentOptions
) -> Placement:
    """Draw a random rotation, reflection and scale about a centre."""
    free = rng.random() < options.free_rotation
    angle = rng.uniform(0, 2 * math.pi) if free else math.pi / 2 * int(rng.integers(4))
    # An image enlarged by a factor samples its source in steps shorter by that factor.
    low, high = map(math.log, options.scale)
    factor = math.exp(rng.uniform(low, high))
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    return Placement(centre_yx, np.array([[cos, -sin * mirror], [sin, cos * mirror]]))


def sample(
    sources: Tensor,
    placements: list[Placement],
    size: int,
    *,
    mode: str = "bicubic",
    middle: float | None = None,
) -> Tensor:
    """Sample one image (slices, size, size) from each of N sources (slices, H, W), mirrored at their edges.

    The pixel `middle` of the image lies on the centre of its placement; by default (size - 1) / 2.
    """
    height, width = sources.shape[2:]
    offset = np.arange(size) - ((size - 1) / 2 if middle is None else middle)
    yx = np.stack(np.meshgrid(offset, offset, indexing="ij"), axis=-1)
    grids = np.stack([yx @ p.matrix.T + np.asarray(p.centre_yx) for p in placements])
    # grid_sample with align_corners=False: -1 and 1 are the outer edges of the first and last pixel.
    grids = (2 * grids + 1) / np.array([height, width]) - 1
    grid = torch.from_numpy(grids[..., ::-1].astype(np.float32)).to(sources.device)
    images: Tensor = F.grid_sample(sources, grid, mode=mode, padding_mode="reflection", align_corners=False)
    return images


def augment_values(images: Tensor, rng: np.random.Generator, options: AugmentOptions) -> Tensor:
    """Change the values of normalised (N, slices, H, W) images as another microscope would.

    The standard deviation is restored after gain, blur and noise: a tomogram is normalised as a whole.
    """
    n, _, height, width = images.shape

    def column(values: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(images.device)[:, None, None, None]

    def rarely(values: npt.NDArray[np.float64], otherwise: float, share: float) -> npt.NDArray[np.float64]:
        return np.where(rng.random(n) < share, values, otherwise)

    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    position = frequency / frequency.max() * (SPECTRUM_KNOTS - 1)
    low = np.minimum(position.astype(int), SPECTRUM_KNOTS - 2)
    part = position - low
    knots = rng.normal(0.0, options.spectrum, (n, SPECTRUM_KNOTS))
    exponent = knots[:, low] * (1 - part) + knots[:, low + 1] * part
    blur = rarely(rng.uniform(0, options.blur_px, n), 0.0, RARE)
    exponent -= 2 * (math.pi * blur[:, None, None] * frequency) ** 2
    gain = torch.from_numpy(np.exp(exponent).astype(np.float32)).to(images.device)[:, None]
    changed = torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=(height, width))

    before = _standard_deviations(images)
    level = rarely(rng.uniform(0, options.noise, n), 0.0, 0.5)
    noisy = torch.from_numpy(np.flatnonzero(level)).to(images.device)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noise = torch.randn((len(noisy), *images.shape[1:]), generator=generator).to(images.device)
    changed = changed / _standard_deviations(changed).clamp_min(1e-6)
    changed = changed.index_add(0, noisy, column(level)[noisy] * noise)
    changed = changed / _standard_deviations(changed).clamp_min(1e-6) * before

    gamma = rarely(rng.uniform(*options.gamma, n), 1.0, RARE)
    bent = torch.from_numpy(np.flatnonzero(gamma != 1)).to(images.device)
    values = changed[bent]
    changed[bent] = torch.sign(values) * values.abs().clamp_min(1e-6) ** column(gamma)[bent]
    changed = changed * column(rng.uniform(*options.contrast, n)) + column(rng.normal(0, options.shift, n))
    limited: Tensor = changed.clamp(-options.clip, options.clip)
    return limited


def _standard_deviations(images: Tensor) -> Tensor:
    """Return (N, 1, 1, 1) standard deviations of (N, slices, H, W) images; N - 1 in the denominator.

    Of several dimensions at a time, `Tensor.std` is ten times as slow on a CPU.
    """
    flat = images.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1)
    return (norm / math.sqrt(max(1, flat.shape[1] - 1)))[:, None, None, None]
