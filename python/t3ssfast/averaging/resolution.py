"""How far two half maps agree: Fourier shell correlation, freed of what the mask alone makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.averaging.fourier import Shells

__all__ = ["ShellCorrelation", "compare_halves", "shell_correlation"]

Float64 = npt.NDArray[np.float64]
Tensor = torch.Tensor

# Phases are replaced from where the masked correlation first falls below this (Chen et al. 2013).
RANDOM_FROM = 0.8
SIGNAL, HALF_BIT = 0.143, 0.5
# Shells say something where their correlation exceeds this many standard deviations of pure noise's.
SIGNIFICANT = 3.0
# A mask lets a shell leak into its neighbours, this far for masks wider than half a box.
MASK_BLUR_SHELLS = 2


@dataclass(frozen=True)
class ShellCorrelation:
    """Agreement of two half maps, shell by shell from the origin.

    Parameters
    ----------
    frequency_per_angstrom
        (s,) of each shell.
    correlation
        (s,) masked and corrected for the mask: ``(F - R) / (1 - R)`` with F the correlation of the masked
        maps and R that after their phases were randomised (Chen et al. 2013, Ultramicroscopy 135, 24).
    masked
        (s,) F.
    noise
        (s,) what pure noise exceeds in less than one shell of a thousand: three standard deviations, from
        the number of independent values under the mask and the symmetry (van Heel & Schatz 2005).
    shared_angstrom
        The halves had everything coarser than this in common; agreement there is no evidence.
    """

    frequency_per_angstrom: Float64
    correlation: Float64
    masked: Float64
    noise: Float64
    shared_angstrom: float

    def crossing_angstrom(self, threshold: float) -> float:
        """Resolution where the correlation first falls below a threshold, NaN where there is no claim.

        There is a claim only where the crossing is finer than what the halves shared and what the mask's
        blur makes of it, and where the shells in between, taken together, agree better than noise does.
        """
        spacing = float(self.frequency_per_angstrom[1])
        below = np.flatnonzero(self.correlation[1:] < threshold) + 1
        first = int(below[0]) if len(below) else len(self.correlation)
        shared = 0 if math.isinf(self.shared_angstrom) else round(1 / (self.shared_angstrom * spacing))
        between = slice(max(shared + MASK_BLUR_SHELLS, 1), first)
        # The noise of a mean, each shell weighted by how many independent values it holds.
        weight = 1 / self.noise[between] ** 2
        if not len(weight) or weight @ self.correlation[between] < np.sqrt(weight.sum()):
            return math.nan
        if first == len(self.correlation):
            return float(1 / self.frequency_per_angstrom[-1])
        high, low = self.correlation[first - 1 : first + 1]
        part = min(max((high - threshold) / (high - low), 0.0), 1.0)
        return float(1 / (spacing * (first - 1 + part)))

    @property
    def resolution_angstrom(self) -> float:
        """Where the correlation falls below 0.143 (Rosenthal & Henderson 2003); NaN without a claim."""
        return self.crossing_angstrom(SIGNAL)

    @property
    def half_angstrom(self) -> float:
        """Where the correlation falls below 0.5; NaN without a claim."""
        return self.crossing_angstrom(HALF_BIT)


def shell_correlation(first: Tensor, second: Tensor, shells: Shells) -> Tensor:
    """(radius + 1,) correlation of two transforms (K,), from -1 to 1; 1 at the origin."""
    cross = shells.shell_mean((first * second.conj()).real)
    norm = shells.shell_mean(first.abs().square()) * shells.shell_mean(second.abs().square())
    correlation = cross / norm.sqrt().clamp_min(1e-30)
    correlation[0] = 1.0
    return correlation


def compare_halves(
    halves: tuple[Tensor, Tensor],
    mask: Tensor,
    voxel_size_angstrom: float,
    *,
    fold: int = 1,
    shared_angstrom: float = math.inf,
    seed: int = 0,
) -> ShellCorrelation:
    """Shell correlation of two half maps under a mask.

    Parameters
    ----------
    halves
        Two (n, n, n) volumes.
    mask
        (n, n, n), 0 to 1.
    voxel_size_angstrom
        Of the maps.
    fold
        Of the symmetry that was imposed; it leaves fewer independent values.
    shared_angstrom
        See `ShellCorrelation`.
    seed
        Of the random phases.
    """
    n = mask.shape[-1]
    shells = Shells(n, n // 2 - 1, mask.device)
    masked = shell_correlation(
        shells.transform(_under(mask, halves[0])), shells.transform(_under(mask, halves[1])), shells
    )
    low = torch.nonzero(masked < RANDOM_FROM)
    start = int(low[0]) if len(low) else shells.radius + 1
    generator = torch.Generator(device="cpu").manual_seed(seed)
    scrambled = [
        shells.transform(_under(mask, shells.volume(_scrambled(shells, half, start, generator))))
        for half in halves
    ]
    of_mask = shell_correlation(scrambled[0], scrambled[1], shells)
    # The two shells next to the first random one still hold some of its neighbours' true phases.
    corrected = masked.clone()
    beyond = slice(min(start + 2, shells.radius + 1), None)
    by_chance = of_mask[beyond].clamp(max=0.99)
    corrected[beyond] = (masked[beyond] - by_chance) / (1 - by_chance)
    inside = float(mask.square().mean())
    independent = (shells.shell_count() * inside / fold).clamp_min(1.0)
    noise = SIGNIFICANT / independent.sqrt()
    frequency = torch.arange(shells.radius + 1, dtype=torch.float64) / (n * voxel_size_angstrom)
    return ShellCorrelation(
        frequency.numpy(),
        corrected.double().cpu().numpy(),
        masked.double().cpu().numpy(),
        noise.double().cpu().numpy(),
        shared_angstrom,
    )


def _under(mask: Tensor, volume: Tensor) -> Tensor:
    """A masked volume whose mean under the mask is 0, so that the mask itself is not seen in it."""
    return (volume - (volume * mask).sum() / mask.sum().clamp_min(1e-20)) * mask


def _scrambled(shells: Shells, volume: Tensor, start: int, generator: torch.Generator) -> Tensor:
    """The transform of a volume with random phases from shell `start` on."""
    values = shells.transform(volume)
    angle = torch.rand(len(values), generator=generator).to(values.device) * (2 * torch.pi)
    random = torch.polar(values.abs(), angle)
    # In the plane kx = 0 both of a conjugate pair are listed: one half of it is the other's mirror image.
    k = shells.frequency
    zero = k[:, 2] == 0
    keep = ~zero | (k[:, 0] > 0) | ((k[:, 0] == 0) & (k[:, 1] > 0))
    grid = shells.on_grid(torch.where(keep, random, 0))
    plane = grid[..., 0]
    mirrored = plane + plane.flip(0, 1).conj()
    grid = torch.cat([mirrored[..., None], grid[..., 1:]], dim=-1)
    random = grid.reshape(-1)[shells.index]
    return torch.where(shells.shell >= start, random, values)
