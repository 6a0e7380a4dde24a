"""Volumes turned and shifted by way of their Fourier transforms.

Rotations are (3, 3) matrices that act on zyx vectors. A volume of edge n has its origin at voxel n // 2.
Frequencies are whole numbers, cycles per box of n voxels, zyx; of a real volume's transform the half with
kx >= 0 is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import grid_sample, pad

__all__ = ["Shells", "Spectrum", "phase_ramp", "turned"]

Tensor = torch.Tensor

# Twice the box: between samples this close a transform is smooth enough for linear interpolation.
PADDING = 2


@dataclass(frozen=True)
class Shells:
    """The frequencies of an n^3 box up to a radius, as a list.

    Parameters
    ----------
    size
        Edge n of the box.
    radius
        Frequencies with ``|k| <= radius`` are listed; at most n / 2 - 1, where both signs are there.
    device
        Where the tensors live.
    """

    size: int
    radius: int
    device: torch.device

    @cached_property
    def grid_shape(self) -> tuple[int, int, int]:
        """Of the smallest half grid that holds the list: kz and ky from -radius, kx from 0."""
        edge = 2 * self.radius + 1
        return edge, edge, self.radius + 1

    @cached_property
    def index(self) -> Tensor:
        """(K,) places in the flattened grid."""
        axis = torch.arange(-self.radius, self.radius + 1, device=self.device)
        z, y, x = torch.meshgrid(axis, axis, axis[self.radius :], indexing="ij")
        return torch.nonzero((z * z + y * y + x * x <= self.radius**2).reshape(-1))[:, 0]

    @cached_property
    def frequency(self) -> Tensor:
        """(K, 3) float32 kz, ky, kx."""
        _, ny, nx = self.grid_shape
        z, rest = self.index // (ny * nx), self.index % (ny * nx)
        zyx = torch.stack([z - self.radius, rest // nx - self.radius, rest % nx], dim=1)
        frequency: Tensor = zyx.to(torch.float32)
        return frequency

    @cached_property
    def shell(self) -> Tensor:
        """(K,) distance from the origin, rounded."""
        shell: Tensor = torch.linalg.vector_norm(self.frequency, dim=1).round().to(torch.int64)
        return shell

    @cached_property
    def multiplicity(self) -> Tensor:
        """(K,) how many frequencies of the whole transform each stands for: 1 where kx = 0, else 2."""
        return torch.where(self.frequency[:, 2] == 0, 1.0, 2.0)

    def on_grid(self, values: Tensor) -> Tensor:
        """(..., K) to the half grid, 0 where nothing is listed."""
        count = self.grid_shape[0] * self.grid_shape[1] * self.grid_shape[2]
        grid = values.new_zeros(*values.shape[:-1], count)
        grid[..., self.index] = values
        shaped: Tensor = grid.reshape(*values.shape[:-1], *self.grid_shape)
        return shaped

    def volume(self, values: Tensor) -> Tensor:
        """(..., K) to the (..., n, n, n) real volume that has this transform."""
        n, r = self.size, self.radius
        half = values.new_zeros(*values.shape[:-1], n, n, n // 2 + 1)
        low = n // 2 - r
        half[..., low : low + 2 * r + 1, low : low + 2 * r + 1, : r + 1] = self.on_grid(values)
        spectrum = torch.fft.ifftshift(half, dim=(-3, -2))
        real: Tensor = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(n, n, n)), dim=(-3, -2, -1))
        return real

    def transform(self, volume: Tensor) -> Tensor:
        """(..., n, n, n) volumes to (..., K): the inverse of `volume` for what is listed."""
        n, r = self.size, self.radius
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(volume, dim=(-3, -2, -1)), dim=(-3, -2, -1))
        spectrum = torch.fft.fftshift(spectrum, dim=(-3, -2))
        low = n // 2 - r
        part = spectrum[..., low : low + 2 * r + 1, low : low + 2 * r + 1, : r + 1]
        listed: Tensor = part.reshape(*volume.shape[:-3], -1)[..., self.index]
        return listed

    def shell_mean(self, values: Tensor) -> Tensor:
        """(..., K) real to (..., radius + 1): means over shells of the whole transform."""
        weight = self.multiplicity
        total = values.new_zeros(*values.shape[:-1], self.radius + 1)
        total.index_add_(-1, self.shell, values * weight)
        count = weight.new_zeros(self.radius + 1).index_add_(0, self.shell, weight)
        return total / count

    def shell_count(self) -> Tensor:
        """(radius + 1,) frequencies of the whole transform in each shell."""
        count = self.multiplicity.new_zeros(self.radius + 1)
        return count.index_add_(0, self.shell, self.multiplicity)


class Spectrum:
    """Transforms of volumes that can be asked anywhere between the samples.

    The box is padded to twice its edge and the transform interpolated linearly; what that interpolation
    does to the volume, a window of sinc^2, is divided out beforehand (Jackson et al. 1991, gridding).

    Parameters
    ----------
    volumes
        (b, n, n, n) float32.
    radius
        Highest frequency that will be asked.
    """

    def __init__(self, volumes: Tensor, radius: int) -> None:
        n = volumes.shape[-1]
        self.size, self.padded = n, PADDING * n
        position = (torch.arange(n, device=volumes.device, dtype=torch.float32) - n // 2) / self.padded
        window = 1 / torch.sinc(position) ** 2
        windowed = volumes * window[:, None, None] * window[:, None] * window
        before = self.padded // 2 - n // 2
        after = self.padded - n - before
        wide = torch.fft.ifftshift(pad(windowed, [before, after] * 3), dim=(-3, -2, -1))
        spectrum = torch.fft.rfftn(wide, dim=(-3, -2, -1))
        # Two samples beyond the highest frequency, for the interpolation.
        self.reach = min(PADDING * radius + 2, n - 1)
        axis = torch.arange(-self.reach, self.reach + 1, device=volumes.device)
        spectrum = spectrum[:, axis][:, :, axis][..., : self.reach + 1]
        self.channels = torch.view_as_real(spectrum).movedim(-1, 1).contiguous()

    def at(self, frequency_zyx: Tensor) -> Tensor:
        """(b, K, 3) frequencies, one list for each volume, to (b, K) complex values."""
        return self._sample(self.channels, frequency_zyx)

    def _sample(self, channels: Tensor, frequency_zyx: Tensor) -> Tensor:
        # The half with kx < 0 is the conjugate of the other.
        flip = frequency_zyx[..., 2:] < 0
        k = torch.where(flip, -frequency_zyx, frequency_zyx) * PADDING
        scale = k.new_tensor([1 / self.reach, 1 / self.reach, 2 / self.reach])
        offset = k.new_tensor([0.0, 0.0, 1.0])
        grid = (k * scale - offset).flip(-1)[:, None, None]
        found = grid_sample(channels, grid, align_corners=True)[:, :, 0, 0]
        sign = torch.where(flip[..., 0], -1.0, 1.0)
        return torch.complex(found[:, 0], found[:, 1] * sign)

    def turned(self, rotations: Tensor, frequency_zyx: Tensor) -> Tensor:
        """The first volume turned by each of (q, 3, 3) rotations, at (K, 3) frequencies: (q, K) complex.

        A volume turned by R has at k what the volume has at ``R^-1 k``.
        """
        k = (frequency_zyx @ rotations).reshape(1, -1, 3)
        return self._sample(self.channels[:1], k).reshape(len(rotations), -1)


def turned(volume: Tensor, rotation: Tensor, shift_zyx: Tensor) -> Tensor:
    """A (n, n, n) volume turned about its origin and then shifted by voxels."""
    n = volume.shape[-1]
    shells = Shells(n, n // 2 - 1, volume.device)
    values = Spectrum(volume[None], shells.radius).turned(rotation[None], shells.frequency)[0]
    return shells.volume(values * phase_ramp(shells.frequency, -shift_zyx, n))


def phase_ramp(frequency_zyx: Tensor, shift_zyx: Tensor, size: int) -> Tensor:
    """``exp(2 pi i k.s / n)``: moves a volume by -s voxels."""
    angle = (frequency_zyx @ shift_zyx) * (2 * torch.pi / size)
    return torch.polar(torch.ones_like(angle), angle)
