"""Rotation and translation of volumes through their Fourier transforms.

Rotations are (3, 3) matrices acting on zyx vectors. A volume of edge n has its origin at voxel n // 2.
Frequencies are integers in cycles per box of n voxels, zyx. Only the half with kx >= 0 is stored, because
the transform of a real volume is Hermitian.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import grid_sample, pad

__all__ = ["FourierInterpolator", "FourierShells", "phase_ramp", "rotate_and_shift"]

Tensor = torch.Tensor

# Zero padding to twice the box makes the transform smooth enough for linear interpolation.
PADDING = 2


@dataclass(frozen=True)
class FourierShells:
    """The K frequencies of a (n, n, n) box within a radius, as a list."""

    # Edge n of the box.
    size: int
    # Largest |k|, at most n / 2 - 1 (below the Nyquist frequency).
    radius: int
    device: torch.device

    @cached_property
    def grid_shape(self) -> tuple[int, int, int]:
        """Shape of the smallest half grid of all frequencies: kz and ky from -radius, kx from 0."""
        edge = 2 * self.radius + 1
        return edge, edge, self.radius + 1

    @cached_property
    def index(self) -> Tensor:
        """(K,) positions in the flattened half grid."""
        axis = torch.arange(-self.radius, self.radius + 1, device=self.device)
        z, y, x = torch.meshgrid(axis, axis, axis[self.radius :], indexing="ij")
        return torch.nonzero((z * z + y * y + x * x <= self.radius**2).reshape(-1))[:, 0]

    @cached_property
    def frequency(self) -> Tensor:
        """(K, 3) float32 frequencies kz, ky, kx."""
        _, ny, nx = self.grid_shape
        z, rest = self.index // (ny * nx), self.index % (ny * nx)
        zyx = torch.stack([z - self.radius, rest // nx - self.radius, rest % nx], dim=1)
        frequency: Tensor = zyx.to(torch.float32)
        return frequency

    @cached_property
    def shell(self) -> Tensor:
        """(K,) shell numbers: distances from the origin, rounded."""
        shell: Tensor = torch.linalg.vector_norm(self.frequency, dim=1).round().to(torch.int64)
        return shell

    @cached_property
    def multiplicity(self) -> Tensor:
        """(K,) number of samples of the full transform per frequency: 1 where kx = 0, else 2."""
        return torch.where(self.frequency[:, 2] == 0, 1.0, 2.0)

    @cached_property
    def shell_count(self) -> Tensor:
        """(radius + 1,) number of samples of the full transform in each shell."""
        count = self.multiplicity.new_zeros(self.radius + 1)
        return count.index_add_(0, self.shell, self.multiplicity)

    def shell_mean(self, values: Tensor) -> Tensor:
        """Average real (..., K) values over each shell of the full transform: (..., radius + 1)."""
        total = values.new_zeros(*values.shape[:-1], self.radius + 1)
        total.index_add_(-1, self.shell, values * self.multiplicity)
        return total / self.shell_count

    def on_grid(self, values: Tensor) -> Tensor:
        """Place (..., K) values on the half grid, 0 beyond the radius."""
        depth, height, width = self.grid_shape
        grid = values.new_zeros(*values.shape[:-1], depth * height * width)
        grid[..., self.index] = values
        return grid.reshape(*values.shape[:-1], depth, height, width)

    def volume(self, values: Tensor) -> Tensor:
        """Return the (..., n, n, n) real volumes with the given (..., K) transforms."""
        n, r = self.size, self.radius
        half = values.new_zeros(*values.shape[:-1], n, n, n // 2 + 1)
        low = n // 2 - r
        half[..., low : low + 2 * r + 1, low : low + 2 * r + 1, : r + 1] = self.on_grid(values)
        spectrum = torch.fft.ifftshift(half, dim=(-3, -2))
        real: Tensor = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(n, n, n)), dim=(-3, -2, -1))
        return real

    def transform(self, volume: Tensor) -> Tensor:
        """Return the (..., K) transforms of (..., n, n, n) volumes; inverse of `volume` within the radius."""
        n, r = self.size, self.radius
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(volume, dim=(-3, -2, -1)), dim=(-3, -2, -1))
        spectrum = torch.fft.fftshift(spectrum, dim=(-3, -2))
        low = n // 2 - r
        part = spectrum[..., low : low + 2 * r + 1, low : low + 2 * r + 1, : r + 1]
        values: Tensor = part.reshape(*volume.shape[:-3], -1)[..., self.index]
        return values


class FourierInterpolator:
    """Transforms of volumes, interpolated at arbitrary frequencies.

    The volumes are zero-padded to twice their edge and the transforms interpolated linearly. The volumes are
    first divided by the window sinc^2 that linear interpolation multiplies them with (gridding, Jackson et
    al. 1991). `volumes` are (b, n, n, n) float32, `radius` is the highest frequency to interpolate.
    """

    def __init__(self, volumes: Tensor, radius: int) -> None:
        n = volumes.shape[-1]
        padded = PADDING * n
        position = (torch.arange(n, device=volumes.device, dtype=torch.float32) - n // 2) / padded
        window = 1 / torch.sinc(position) ** 2
        windowed = volumes * window[:, None, None] * window[:, None] * window
        before = padded // 2 - n // 2
        wide = torch.fft.ifftshift(pad(windowed, [before, padded - n - before] * 3), dim=(-3, -2, -1))
        spectrum = torch.fft.rfftn(wide, dim=(-3, -2, -1))
        # Interpolation needs two samples beyond the highest frequency.
        self._highest = min(PADDING * radius + 2, n - 1)
        axis = torch.arange(-self._highest, self._highest + 1, device=volumes.device)
        spectrum = spectrum[:, axis][:, :, axis][..., : self._highest + 1]
        self._channels = torch.view_as_real(spectrum).movedim(-1, 1).contiguous()

    def sample(self, frequency_zyx: Tensor) -> Tensor:
        """Interpolate each volume at its own (b, K, 3) frequencies: (b, K) complex."""
        # The half with kx < 0 is the complex conjugate of the other.
        negative = frequency_zyx[..., 2:] < 0
        k = torch.where(negative, -frequency_zyx, frequency_zyx) * PADDING
        scale = k.new_tensor([1 / self._highest, 1 / self._highest, 2 / self._highest])
        grid = (k * scale - k.new_tensor([0.0, 0.0, 1.0])).flip(-1)[:, None, None]
        values = grid_sample(self._channels, grid, align_corners=True)[:, :, 0, 0]
        sign = torch.where(negative[..., 0], -1.0, 1.0)
        return torch.complex(values[:, 0], values[:, 1] * sign)

    def sample_rotated(self, rotations: Tensor, frequency_zyx: Tensor) -> Tensor:
        """Interpolate a single volume, rotated by (q, 3, 3) matrices, at (K, 3) frequencies: (q, K) complex.

        The transform of a volume rotated by R at k is that of the volume at ``R^-1 k``.
        """
        k = (frequency_zyx @ rotations).reshape(1, -1, 3)
        return self.sample(k).reshape(len(rotations), -1)


def rotate_and_shift(volume: Tensor, rotation: Tensor, shift_zyx: Tensor) -> Tensor:
    """Rotate a (n, n, n) volume about its origin, then shift it by voxels."""
    n = volume.shape[-1]
    shells = FourierShells(n, n // 2 - 1, volume.device)
    interpolator = FourierInterpolator(volume[None], shells.radius)
    values = interpolator.sample_rotated(rotation[None], shells.frequency)[0]
    return shells.volume(values * phase_ramp(shells.frequency, -shift_zyx, n))


def phase_ramp(frequency_zyx: Tensor, shift_zyx: Tensor, size: int) -> Tensor:
    """Return ``exp(2 pi i k.s / n)``, which shifts a volume by -s voxels."""
    angle = (frequency_zyx @ shift_zyx) * (2 * torch.pi / size)
    return torch.polar(torch.ones_like(angle), angle)
