"""Transforms, rotations and shifts of volumes compared with NumPy and with Gaussian blobs; the soft mask."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from simulated_particles import CPU, blobs, voxel_grid
from t3ssfast.averaging.average import soft_mask
from t3ssfast.averaging.fourier import (
    FourierInterpolator,
    FourierShells,
    members_of_groups,
    phase_ramp,
    rotate_and_shift,
    sum_in_order,
)
from t3ssfast.averaging.stack import zyx_matrices


def test_transform_equals_numpy_and_its_inverse_inverts():
    volume = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(0))
    shells = FourierShells(12, 5, CPU)
    transform = shells.transform(volume)
    expected = np.fft.fftn(np.fft.ifftshift(volume.numpy()))
    np.testing.assert_allclose(transform, expected[tuple(shells.frequency.long().numpy().T)], atol=1e-3)
    np.testing.assert_allclose(shells.transform(shells.volume(transform)), transform, atol=1e-3)
    k = np.fft.fftfreq(12, 1 / 12)
    count = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 <= 25).sum()
    assert shells.multiplicity.sum() == shells.shell_count.sum() == count


def test_sums_in_order_equal_index_add():
    """A CUDA device's index_add_ gives other bits in every run."""
    shell = FourierShells(16, 7, CPU).shell
    values = torch.randn(3, len(shell), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.zeros(3, 8, dtype=torch.float64).index_add_(-1, shell, values)
    members = members_of_groups(shell, 8)
    torch.testing.assert_close(sum_in_order(values, members), expected, rtol=1e-12, atol=1e-12)
    assert sorted(members[members < len(shell)].tolist()) == list(range(len(shell)))


def test_shell_sums_on_a_device_do_not_use_index_add(monkeypatch):
    """The device is played by tensors that say they are on it."""
    shells = FourierShells(16, 7, CPU)
    values = torch.randn(2, len(shells.shell), generator=torch.Generator().manual_seed(1))
    expected = shells.shell_mean(values)

    class OnDevice(torch.Tensor):
        device = torch.device("cuda", 0)

        def index_add_(self, *_):
            raise AssertionError("not deterministic on CUDA")

        new_zeros = index_add_

    torch.testing.assert_close(
        shells.shell_mean(values.as_subclass(OnDevice)).as_subclass(torch.Tensor), expected
    )


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(-3, 3)] * 3))
def test_rotated_and_shifted_volume(euler, shift):
    centres = [(3.0, -2.0, 4.0), (-4.0, 1.0, -1.0)]
    matrix = zyx_matrices(Rotation.from_euler("ZYZ", euler, degrees=True), CPU)
    moved = [tuple(map(float, (matrix @ torch.tensor(c)).numpy() + np.array(shift))) for c in centres]
    found = rotate_and_shift(blobs(32, centres), matrix, torch.tensor(shift, dtype=torch.float32))
    # Interpolation errors are a few percent.
    np.testing.assert_allclose(found, blobs(32, moved), atol=0.06)


def test_phase_ramp_shifts():
    shells = FourierShells(16, 7, CPU)
    ramp = phase_ramp(shells.frequency, torch.tensor([-2.0, 1.0, 0.0]), 16)
    moved = shells.volume(shells.transform(blobs(16, [(0.0, 0.0, 0.0)])) * ramp)
    assert np.unravel_index(int(moved.argmax()), (16, 16, 16)) == (10, 7, 8)


def test_interpolated_transform():
    volume = blobs(24, [(2.0, -3.0, 1.0)])
    k = torch.tensor([[1.3, -2.2, 0.4], [-0.6, 1.1, -3.7], [0.0, 0.0, 0.0]])
    waves = torch.exp(-2j * torch.pi * (voxel_grid(24).reshape(-1, 3) @ k.T) / 24)
    expected = (volume.reshape(-1, 1) * waves).sum(0)
    found = FourierInterpolator(volume[None], 8).sample(k[None])[0]
    np.testing.assert_allclose(found, expected, atol=0.05 * float(volume.sum()))


def test_mask_is_soft_and_fits_the_box():
    mask = soft_mask(32, 8.0, 4.0, CPU)
    assert mask[16, 16, 16] == mask[16, 16, 23] == 1
    assert 0 < mask[16, 16, 26] < 1
    assert mask[16, 16, 29] == mask[0].max() == mask.min() == 0
