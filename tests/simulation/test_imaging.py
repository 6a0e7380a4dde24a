"""Surfaces, projection, contrast transfer and reconstruction compared with exact results."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.simulation.geometry import irregular_surface
from t3ssfast.simulation.imaging import (
    Projector,
    contrast_transfer,
    electron_wavelength,
    reconstruct,
    tilt_angles,
    tilt_series,
)
from t3ssfast.simulation.parameters import Physics


def test_surface_distance_matches_a_sphere() -> None:
    def sphere(z: float):  # type: ignore[no-untyped-def]
        return irregular_surface(np.random.default_rng(0), [z, 60.0, 60.0], [30.0] * 3, roughness=0.0)

    surface = sphere(40.0)
    found = surface.signed_distance((60, 90, 90), 1.36, pad_nm=10, reach_nm=15)
    assert found is not None
    box, distance = found
    z, y, x = np.mgrid[box] * 1.36
    exact = np.sqrt((z - 40) ** 2 + (y - 60) ** 2 + (x - 60) ** 2) - 30
    assert np.abs(distance - exact)[np.abs(exact) < 12].max() < 0.25
    assert (np.sign(distance) == np.sign(exact))[np.abs(exact) > 1].all()
    assert surface.points(3.0).area.sum() == pytest.approx(4 * np.pi * 30**2, rel=1e-3)
    assert sphere(400.0).signed_distance((60, 90, 90), 1.36, pad_nm=10, reach_nm=15) is None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [-60.0, 0.0, 17.0, 60.0])
def test_back_projection_is_the_transpose_of_projection(mirrored: bool, angle: float) -> None:
    rng = np.random.default_rng(1)
    projector = Projector((9, 20, 7), mirrored=mirrored)
    volume = rng.standard_normal((9, 20, 7)).astype(np.float32)
    image = rng.standard_normal((20, 7)).astype(np.float32)
    projected = float(np.vdot(projector.project(volume, angle).astype(np.float64), image))
    back_projected = float(np.vdot(volume.astype(np.float64), projector.back_project(image[None], angle)))
    assert projected == pytest.approx(back_projected, rel=1e-4, abs=1e-3)


def test_projection_sums_along_the_beam() -> None:
    flat = np.ones((8, 40, 3), np.float32)
    for angle in (0.0, 30.0, 60.0):
        image = Projector(flat.shape, mirrored=True).project(flat, angle)
        assert image.mean() == pytest.approx(8 / np.cos(np.radians(angle)), rel=0.02)
    volume = np.arange(8 * 40 * 3, dtype=np.float32).reshape(8, 40, 3)
    image = Projector(volume.shape, mirrored=False).project(volume, 0.0)
    np.testing.assert_allclose(image, volume.sum(axis=0), rtol=1e-6)


def test_reconstruction_keeps_positions() -> None:
    """There is no half-voxel shift and no flipped axis."""
    density = np.zeros((33, 64, 48), np.float32)
    density[20, 15, 30] = 1
    physics = Physics(
        noise_scale=0,
        shift_error_nm=0,
        angle_error_degrees=0,
        defocus_um=1.0,
        defocus_spread_um=0,
        phase_flip=True,
    )
    images, angles = tilt_series(density, 1.36, physics, np.random.default_rng(0))
    volume = reconstruct(images, angles, 33, physics)
    assert np.unravel_index(volume.argmin(), volume.shape) == (20, 15, 30)


def test_contrast_transfer() -> None:
    assert electron_wavelength(300) == pytest.approx(0.01969, abs=1e-5)
    frequency = np.linspace(0, 1 / 27.2, 200)
    transfer, flipped = (
        contrast_transfer(frequency, 50_000, Physics(amplitude_contrast=0.1, b_factor=0, phase_flip=flip))
        for flip in (False, True)
    )
    assert transfer[0] == pytest.approx(-0.2)
    assert (transfer[:150] < 0).all(), "protein is dark in underfocus"
    first_zero = frequency[np.flatnonzero(transfer > 0)[0]]
    assert first_zero == pytest.approx(1 / np.sqrt(0.01969 * 50_000), rel=0.05)
    np.testing.assert_allclose(flipped, -np.abs(transfer))


def test_tilt_angles_are_symmetric_about_the_pretilt() -> None:
    angles = tilt_angles(Physics(tilt_range_degrees=50, tilt_step_degrees=3, pretilt_degrees=4))
    assert angles.mean() == pytest.approx(4)
    assert np.diff(angles) == pytest.approx(3)
    assert 47 < (angles.max() - angles.min()) / 2 <= 50
