"""Rotation and translation of volumes through their Fourier transforms.

Rotations are (3, 3) matrices acting on zyx vectors. A volume of edge n has its origin at voxel n // 2.
Frequencies are integers in cycles per box of n voxels, zyx. Only the half with kx >= 0 is stored, because
the transform of a real volume is Hermitian.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from itertools import product

import torch
from torch.nn.functional import grid_sample, pad

__all__ = [
    "FourierInterpolator",
    "FourierShells",
    "members_of_groups",
    "phase_ramp",
    "rotate_and_shift",
    "sum_in_order",
]

Tensor = torch.Tensor

PADDING = 2  # Zero padding to twice the box makes the transform smooth enough for linear interpolation.


class FourierShells:
    """The K frequencies of a (n, n, n) box with ``|k| <= radius``, as a list. `radius` is at most n / 2 - 1.

    `frequency` is (K, 3) float32, `shell` (K,) the rounded distance from the origin, and `index` (K,) the
    position in the flattened half grid, with kz and ky from -radius and kx from 0.
    """

    def __init__(self, size: int, radius: int, device: torch.device) -> None:
        self.size, self.radius, self.device = size, radius, device
        both = slice(size // 2 - radius, size // 2 + radius + 1)
        self._within_radius = (..., both, both, slice(radius + 1))
        self.grid_shape = 2 * radius + 1, 2 * radius + 1, radius + 1
        axis = torch.arange(-radius, radius + 1, device=device)
        grid = torch.stack(torch.meshgrid(axis, axis, axis[radius:], indexing="ij"), dim=-1).reshape(-1, 3)
        self.index = torch.nonzero(grid.square().sum(1) <= radius**2)[:, 0]
        self.frequency = grid[self.index].to(torch.float32)
        self.shell = torch.linalg.vector_norm(self.frequency, dim=1).round().to(torch.int64)
        # Samples of the full transform per frequency, and per shell.
        self.multiplicity = torch.where(self.frequency[:, 2] == 0, 1.0, 2.0)
        self.shell_count = self._shell_sum(self.multiplicity)

    @cached_property
    def _members(self) -> Tensor:
        return members_of_groups(self.shell, self.radius + 1)

    def shell_mean(self, values: Tensor) -> Tensor:
        """Average real (..., K) values over each shell of the full transform: (..., radius + 1)."""
        return self._shell_sum(values * self.multiplicity) / self.shell_count

    def _shell_sum(self, values: Tensor) -> Tensor:
        if values.device.type == "cpu":
            total = values.new_zeros(*values.shape[:-1], self.radius + 1)
            return total.index_add_(-1, self.shell, values)
        # index_add_ on a CUDA device adds in the order in which threads happen to run.
        return sum_in_order(values, self._members)

    def on_grid(self, values: Tensor) -> Tensor:
        """Place (..., K) values on the half grid, 0 beyond the radius."""
        grid = values.new_zeros(*values.shape[:-1], math.prod(self.grid_shape))
        grid[..., self.index] = values
        return grid.reshape(*values.shape[:-1], *self.grid_shape)

    def volume(self, values: Tensor) -> Tensor:
        """Return the (..., n, n, n) real volumes with the given (..., K) transforms."""
        n = self.size
        half = values.new_zeros(*values.shape[:-1], n, n, n // 2 + 1)
        half[self._within_radius] = self.on_grid(values)
        spectrum = torch.fft.ifftshift(half, dim=(-3, -2))
        real: Tensor = torch.fft.fftshift(torch.fft.irfftn(spectrum, s=(n, n, n)), dim=(-3, -2, -1))
        return real

    def transform(self, volume: Tensor) -> Tensor:
        """Return the (..., K) transforms of (..., n, n, n) volumes; inverse of `volume` within the radius."""
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(volume, dim=(-3, -2, -1)), dim=(-3, -2, -1))
        part = torch.fft.fftshift(spectrum, dim=(-3, -2))[self._within_radius]
        values: Tensor = part.reshape(*volume.shape[:-3], -1)[..., self.index]
        return values


def members_of_groups(group: Tensor, count: int) -> Tensor:
    """Return the indices of the members of each of `count` groups, filled up with ``len(group)``."""
    order = torch.argsort(group, stable=True)
    sizes = (group[None] == torch.arange(count, device=group.device)[:, None]).sum(1)
    place = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group[order]]
    members = torch.full((count, int(sizes.max())), len(group), device=group.device)
    members[group[order], place] = order
    return members


def sum_in_order(values: Tensor, members: Tensor) -> Tensor:
    """Sum (..., K) values over groups, always in the same order: (..., G).

    `members` (G, M) are the indices of the values of each group, filled up with K.
    """
    return pad(values, (0, 1))[..., members].sum(-1)


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
        spectrum = torch.fft.rfftn(_pad_about_origin(windowed, padded), dim=(-3, -2, -1))
        # Interpolation needs two samples beyond the highest frequency.
        self._highest = min(PADDING * radius + 2, n - 1)
        axis = torch.arange(-self._highest, self._highest + 1, device=volumes.device)
        spectrum = spectrum[..., : self._highest + 1][:, axis][:, :, axis]
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
        """Interpolate a single volume, rotated by (q, 3, 3) matrices, at (K, 3) frequencies: (q, K)."""
        # The transform of a volume rotated by R at k is that of the volume at R^-1 k.
        k = (frequency_zyx @ rotations).reshape(1, -1, 3)
        return self.sample(k).reshape(len(rotations), -1)


def _pad_about_origin(volumes: Tensor, size: int) -> Tensor:
    """Zero-pad (b, n, n, n) volumes to an edge of `size`, and move their origin to voxel 0.

    The same as `pad` and `ifftshift`, which would move all the zeros.
    """
    n = volumes.shape[-1]
    wide = volumes.new_zeros(len(volumes), size, size, size)
    # Voxels from the origin on stay at the front, those before it wrap to the end.
    front = slice(n // 2, n), slice(n - n // 2)
    end = slice(n // 2), slice(size - n // 2, size)
    for (z, to_z), (y, to_y), (x, to_x) in product((front, end), repeat=3):
        wide[:, to_z, to_y, to_x] = volumes[:, z, y, x]
    return wide


@lru_cache(maxsize=8)
def _shells_of_box(size: int, device: torch.device) -> FourierShells:
    """Return all shells of a box; making them takes as long as a rotation."""
    return FourierShells(size, size // 2 - 1, device)


def rotate_and_shift(volume: Tensor, rotation: Tensor, shift_zyx: Tensor) -> Tensor:
    """Rotate a (n, n, n) volume about its origin, then shift it by voxels."""
    n = volume.shape[-1]
    shells = _shells_of_box(n, volume.device)
    interpolator = FourierInterpolator(volume[None], shells.radius)
    values = interpolator.sample_rotated(rotation[None], shells.frequency)[0]
    return shells.volume(values * phase_ramp(shells.frequency, -shift_zyx, n))


def phase_ramp(frequency_zyx: Tensor, shift_zyx: Tensor, size: int) -> Tensor:
    """Return ``exp(2 pi i k.s / n)``, which shifts a volume by -s voxels."""
    angle = (frequency_zyx @ shift_zyx) * (2 * torch.pi / size)
    return torch.polar(torch.ones_like(angle), angle)
