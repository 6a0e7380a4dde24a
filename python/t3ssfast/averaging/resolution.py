"""Fourier shell correlation of two half maps, corrected for the mask by phase randomisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.averaging.fourier import FourierShells

__all__ = ["FSC_THRESHOLD", "FourierShellCorrelation", "half_map_fsc", "shell_correlation"]

Float64 = npt.NDArray[np.float64]
Tensor = torch.Tensor

FSC_THRESHOLD = 0.143  # Threshold of the "gold standard" (Rosenthal & Henderson 2003).
# Phases are randomised from the shell where the masked correlation first falls below this (Chen et al. 2013).
RANDOMISE_BELOW = 0.8
# Standard deviations above which a shell's correlation is significant: 3 for one false shell in a thousand.
SIGNIFICANCE = 3.0
# Multiplication with the mask is a convolution in Fourier space, this wide for masks wider than half a box.
MASK_BLUR_SHELLS = 2


@dataclass(frozen=True)
class FourierShellCorrelation:
    """Fourier shell correlation (FSC) of two half maps in s shells, from the origin outwards.

    `correlation` is corrected for the mask: ``(F - R) / (1 - R)``, with F the FSC of the masked maps
    (`masked`) and R the same after phase randomisation (Chen et al. 2013, Ultramicroscopy 135, 24). `noise`
    is the FSC that pure noise exceeds in less than one shell of a thousand: three standard deviations, from
    the number of independent samples under the mask and the symmetry (van Heel & Schatz 2005). The half maps
    share everything coarser than `shared_angstrom`; their agreement there is no evidence.
    """

    frequency_per_angstrom: Float64
    correlation: Float64
    masked: Float64
    noise: Float64
    shared_angstrom: float

    @property
    def resolution_angstrom(self) -> float:
        """Resolution at FSC = 0.143; NaN if none can be claimed."""
        return self.crossing_angstrom(FSC_THRESHOLD)

    @property
    def half_angstrom(self) -> float:
        """Resolution at FSC = 0.5; NaN if none can be claimed."""
        return self.crossing_angstrom(0.5)

    def crossing_angstrom(self, threshold: float) -> float:
        """Return the resolution where the FSC first falls below a threshold; NaN if none can be claimed.

        A resolution can be claimed only if it is finer than `shared_angstrom`, blurred by the mask, and if
        the shells in between, taken together, agree better than noise does.
        """
        spacing = float(self.frequency_per_angstrom[1])
        below = np.flatnonzero(self.correlation[1:] < threshold) + 1
        first = int(below[0]) if len(below) else len(self.correlation)
        shared = 0 if math.isinf(self.shared_angstrom) else round(1 / (self.shared_angstrom * spacing))
        evidence = slice(max(shared + MASK_BLUR_SHELLS, 1), first)
        # Noise of a mean in which each shell is weighted by its number of independent samples.
        weight = 1 / self.noise[evidence] ** 2
        if not len(weight) or weight @ self.correlation[evidence] < np.sqrt(weight.sum()):
            return math.nan
        if first == len(self.correlation):
            return float(1 / self.frequency_per_angstrom[-1])
        high, low = self.correlation[first - 1 : first + 1]
        fraction = min(max((high - threshold) / (high - low), 0.0), 1.0)
        return float(1 / (spacing * (first - 1 + fraction)))


def shell_correlation(first: Tensor, second: Tensor, shells: FourierShells) -> Tensor:
    """Correlate two (K,) transforms in each shell: (radius + 1,) from -1 to 1; 1 at the origin."""
    cross = shells.shell_mean((first * second.conj()).real)
    norm = shells.shell_mean(first.abs().square()) * shells.shell_mean(second.abs().square())
    correlation = cross / norm.sqrt().clamp_min(1e-30)
    correlation[0] = 1.0
    return correlation


def half_map_fsc(
    halves: Tensor,
    mask: Tensor,
    voxel_size_angstrom: float,
    *,
    fold: int = 1,
    shared_angstrom: float = math.inf,
    seed: int = 0,
) -> FourierShellCorrelation:
    """Compute the Fourier shell correlation of (2, n, n, n) half maps, corrected for a (n, n, n) mask.

    `fold` is the order of the imposed symmetry, which reduces the number of independent samples; `seed` that
    of the randomised phases.
    """
    n = mask.shape[-1]
    shells = FourierShells(n, n // 2 - 1, mask.device)
    masked = _masked_correlation(halves[0], halves[1], mask, shells)
    below = torch.nonzero(masked < RANDOMISE_BELOW)
    start = int(below[0]) if len(below) else shells.radius + 1
    generator = torch.Generator(device="cpu").manual_seed(seed)
    first, second = (shells.volume(_randomise_phases(shells, half, start, generator)) for half in halves)
    corrected = masked.clone()
    # The mask carries true phases over into the first two randomised shells.
    beyond = slice(start + 2, None)
    chance = _masked_correlation(first, second, mask, shells)[beyond].clamp(max=0.99)
    corrected[beyond] = (masked[beyond] - chance) / (1 - chance)
    independent = (shells.shell_count * float(mask.square().mean()) / fold).clamp_min(1.0)
    frequency = torch.arange(shells.radius + 1, dtype=torch.float64) / (n * voxel_size_angstrom)
    curves = frequency, corrected, masked, SIGNIFICANCE / independent.sqrt()
    frequencies, *arrays = (curve.double().cpu().numpy() for curve in curves)
    return FourierShellCorrelation(frequencies, arrays[0], arrays[1], arrays[2], shared_angstrom)


def _masked_correlation(first: Tensor, second: Tensor, mask: Tensor, shells: FourierShells) -> Tensor:
    """Correlate two volumes under a mask, in each shell."""
    # Without the mean, because otherwise the mask itself correlates.
    one, other = (
        shells.transform((volume - (volume * mask).sum() / mask.sum().clamp_min(1e-20)) * mask)
        for volume in (first, second)
    )
    return shell_correlation(one, other, shells)


def _randomise_phases(
    shells: FourierShells, volume: Tensor, start: int, generator: torch.Generator
) -> Tensor:
    """Return the transform of a volume with random phases from shell `start` outwards."""
    values = shells.transform(volume)
    angle = torch.rand(len(values), generator=generator).to(values.device) * (2 * torch.pi)
    random = torch.polar(values.abs(), angle)
    # The list holds both members of the conjugate pairs in the plane kx = 0: one is made from the other.
    z, y, x = shells.frequency.T
    grid = shells.on_grid(torch.where((x != 0) | (z > 0) | ((z == 0) & (y > 0)), random, 0))
    grid[..., 0] += grid[..., 0].flip(0, 1).conj()
    return torch.where(shells.shell >= start, grid.reshape(-1)[shells.index], values)
