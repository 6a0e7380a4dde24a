"""The unrolled membrane of shapes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.errors import InputError
from t3ssfast.napari_plugin.unroll import fit_surface, unroll
from t3ssfast.tomogram import Tomogram

SIZE = 40.0  # Angstrom; a voxel is 4 nm
AXES = np.array([100.0, 120.0, 145.0])  # nm, of the ellipsoid half-way between both membranes
SHAPE = (64, 90, 96)
CENTRE = np.array([32.0, 42.0, 50.0])


def level_nm(position_zyx):
    """Return about the distance of positions in voxels from the ellipsoid, in nm (Taubin 1991)."""
    scaled = (position_zyx - CENTRE) * SIZE / 10
    value = (scaled**2 / AXES**2).sum(axis=-1)
    gradient = np.linalg.norm(2 * scaled / AXES**2, axis=-1)
    return (value - 1) / np.maximum(gradient, 1e-6)


def normal_at(position_zyx):
    gradient = (position_zyx - CENTRE) / AXES**2
    return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def cell():
    """Return the distance from the cell's surface, and both membranes without the caps of the wedge."""
    position = np.moveaxis(np.indices(SHAPE).astype(float), 0, -1)
    level = level_nm(position)
    membranes = np.abs(np.abs(level) - 13) < 4.5
    caps = np.abs(normal_at(position + 1e-3)[..., 0]) > np.cos(np.radians(35))
    return level, membranes & ~caps


def on_surface(direction):
    direction = np.array(direction, float)
    return CENTRE + direction / np.linalg.norm(direction / AXES) * 10 / SIZE


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, -1, 0.3), (1, 0, 0)])
def test_the_surface_lies_between_the_membranes(cell, direction):
    surface = fit_surface(cell[1], on_surface(direction), voxel_size_angstrom=SIZE)
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(400, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    error = level_nm(surface.centre_zyx + surface.radius(unit)[:, None] * unit)
    side = np.abs(unit[:, 0]) < 0.6
    assert np.abs(error[side]).max() < 6
    # The caps, without any membrane, are continued.
    assert np.abs(error[~side]).max() < 10


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, -1)])
def test_layers_are_heights_above_the_membrane(cell, direction):
    level = cell[0].astype(np.float32)
    block = unroll(Tomogram(level, SIZE), cell[1], on_surface(direction), width_nm=240, step_nm=4)
    assert block.values.shape == (31, 60, 60)
    # The distance in the test holds close to the surface.
    near = np.abs(block.heights_nm) < 16
    error = (block.values - block.heights_nm[:, None, None])[near]
    assert np.nanmax(np.abs(error[:, 15:45, 15:45])) < 5
    middle = block.surface_zyx[29:31, 29:31].mean(axis=(0, 1))
    np.testing.assert_allclose(middle, on_surface(direction), atol=2.5)
    cosine = (block.normal_zyx * normal_at(block.surface_zyx)).sum(axis=-1)
    assert np.nanmin(cosine[15:45, 15:45]) > np.cos(np.radians(8))
    # Distances in the middle are true.
    steps = np.linalg.norm(np.diff(block.surface_zyx[30], axis=0), axis=1) * SIZE / 10
    np.testing.assert_allclose(steps[25:35], 4, rtol=0.15)


def test_marks_lie_where_the_particles_are(cell):
    point = on_surface((0, 0.2, 1))
    block = unroll(Tomogram(np.zeros(SHAPE, np.float32), SIZE), cell[1], point, width_nm=240, step_nm=4)
    (there,) = block.to_map(point)
    assert abs(there[0]) < 8
    np.testing.assert_allclose(there[1:], 29.5, atol=2)
    for height, row, column in ((0.0, 20, 40), (30.0, 35, 22), (-20.0, 10, 10)):
        position = block.to_tomogram(height, row, column)
        np.testing.assert_allclose(block.to_map(position), [[height, row, column]], atol=1.5)
    # On the other side of the cell, and far above it.
    assert np.isnan(block.to_map(on_surface((0, 0, -1)))).all()
    assert np.isnan(block.to_map(point + normal_at(point) * 200 * 10 / SIZE)).all()
    assert block.to_map(np.zeros((0, 3))).shape == (0, 3)


def test_a_particle_appears_at_its_mark(cell):
    point = on_surface((0, -0.3, 1))
    position = np.moveaxis(np.indices(SHAPE).astype(float), 0, -1)
    blob = np.exp(-(((position - point) * SIZE / 10) ** 2).sum(axis=-1) / (2 * 12**2)).astype(np.float32)
    block = unroll(Tomogram(blob, SIZE), cell[1], on_surface((0, 0, 1)), width_nm=300, step_nm=4)
    layer = block.mean_of_layers(0, 20)
    brightest = np.unravel_index(np.nanargmax(layer), layer.shape)
    np.testing.assert_allclose(block.to_map(point)[0, 1:], brightest, atol=2)


def test_beyond_the_tomogram_nothing_is_known(cell):
    tomogram = Tomogram(np.ones(SHAPE, np.float32), SIZE)
    block = unroll(tomogram, cell[1], on_surface((0, 0, 1)), width_nm=1500, step_nm=10)
    assert np.isnan(block.values).any()
    assert np.nanmin(block.values) == 1
    assert block.to_tomogram(0, 0, 0) is None
    assert np.isnan(block.mean_of_layers(0, 10)[0, 0])


def test_masks_without_a_cell_are_refused(cell):
    tomogram = Tomogram(np.zeros(SHAPE, np.float32), SIZE)
    with pytest.raises(InputError, match="no part of it"):
        unroll(tomogram, np.zeros(SHAPE, np.uint8), (1, 2, 3))
    with pytest.raises(InputError, match=r"its shape is \(3, 3, 3\)"):
        unroll(tomogram, np.zeros((3, 3, 3)), (1, 2, 3))
