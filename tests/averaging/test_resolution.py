"""Fourier shell correlation compared with NumPy, and the resolution that may be claimed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simulated_particles import BOX, CPU
from t3ssfast.averaging.average import soft_mask
from t3ssfast.averaging.fourier import FourierShells
from t3ssfast.averaging.resolution import half_map_fsc, shell_correlation


def test_shell_correlation_equals_numpy():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=(20,) * 3).astype(np.float32)) for _ in range(2))
    b = a + b
    shells = FourierShells(20, 9, CPU)
    found = shell_correlation(shells.transform(a), shells.transform(b), shells).numpy()
    fa, fb = np.fft.fftn(a.numpy()), np.fft.fftn(b.numpy())
    k = np.fft.fftfreq(20, 1 / 20)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for shell in range(1, 9):
        inside = (np.round(radius) == shell) & (radius <= 9)
        cross = np.real(np.sum(fa[inside] * fb[inside].conj()))
        power = np.sum(np.abs(fa[inside]) ** 2) * np.sum(np.abs(fb[inside]) ** 2)
        assert found[shell] == pytest.approx(cross / np.sqrt(power), abs=1e-4)


def test_fsc_of_equal_and_of_independent_maps():
    generator = torch.Generator().manual_seed(0)
    mask = soft_mask(BOX, 6.0, 3.0, CPU)
    a, b = torch.randn(2, BOX, BOX, BOX, generator=generator)
    equal = half_map_fsc(torch.stack([a, a]), mask, 10.0)
    np.testing.assert_allclose(equal.masked, 1, atol=1e-5)
    assert equal.resolution_angstrom == pytest.approx(1 / equal.frequency_per_angstrom[-1])
    independent = half_map_fsc(torch.stack([a, b]), mask, 10.0)
    assert np.isnan(independent.resolution_angstrom)
    assert (np.abs(independent.correlation[1:]) < independent.noise[1:] * 4 / 3).all()
    # The mean is subtracted: otherwise the mask itself would correlate.
    offset = half_map_fsc(torch.stack([a, b]) + 5.0, mask, 10.0)
    np.testing.assert_allclose(offset.masked, independent.masked, atol=1e-3)
    assert np.isnan(offset.resolution_angstrom)


def test_resolution_must_be_finer_than_what_the_half_maps_share():
    generator = torch.Generator().manual_seed(1)
    *noise, common = torch.randn(3, BOX, BOX, BOX, generator=generator)
    shells = FourierShells(BOX, BOX // 2 - 1, CPU)
    smooth = shells.volume(shells.transform(common) * (shells.shell <= 8)) * 6
    halves, mask = torch.stack(noise) + smooth, torch.ones(BOX, BOX, BOX)
    independent = half_map_fsc(halves, mask, 10.0)
    assert BOX * 10 / independent.resolution_angstrom == pytest.approx(8.9, abs=0.8)
    shared = half_map_fsc(halves, mask, 10.0, shared_angstrom=BOX * 10 / 8)
    assert np.isnan(shared.resolution_angstrom)
