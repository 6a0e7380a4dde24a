"""Poses of candidates: normals of the membrane, out of the cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from t3ssfast.detection.orient import orient
from t3ssfast.runtime.threads import torch_threads

VOXEL = 13.6
NM = VOXEL / 10


def envelope(
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    wedge_degrees: float = 60.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both membranes of an ellipsoidal cell cut by the volume, without the parts in the missing wedge.

    Returns the mask, the distance (nm) from the middle of the periplasm (infinite in the missing wedge), and
    the outward normals.
    """
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * NM
    scaled = (grid - np.array(centre) * NM) / np.array(radii)
    level = np.linalg.norm(scaled, axis=-1)
    gradient = scaled / np.array(radii) / np.maximum(level, 1e-9)[..., None]
    steepness = np.linalg.norm(gradient, axis=-1)
    distance = (level - 1) / np.maximum(steepness, 1e-9)
    normal = gradient / np.maximum(steepness, 1e-9)[..., None]
    seen = np.abs(normal[..., 0]) < np.sin(np.radians(wedge_degrees))
    membrane = (np.abs(np.abs(distance) - 13) < 3.5) & seen
    return membrane.astype(np.uint8), np.where(seen, np.abs(distance), np.inf), normal


@pytest.mark.parametrize(("grid_nm", "median_degrees"), [(3.0, 3.0), (4.5, 4.5)])
@pytest.mark.parametrize(
    ("centre", "radii"),
    [
        ((32, 75, 75), (120.0, 90.0, 90.0)),
        ((10, 40, 140), (110.0, 140.0, 100.0)),  # cut by three faces of the volume
        ((70, -60, 75), (200.0, 170.0, 230.0)),  # its centre lies outside
    ],
)
def test_normals_point_out_of_the_cell(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    grid_nm: float,
    median_degrees: float,
) -> None:
    rng = np.random.default_rng(1)
    membrane, distance, normal = envelope((64, 150, 150), centre, radii)
    # A mask with holes, as a network gives.
    holes = ndimage.gaussian_filter(rng.normal(size=membrane.shape).astype(np.float32), 4)
    membrane[holes > np.quantile(holes, 0.8)] = 0
    candidates = np.argwhere(distance < 1.0)
    chosen = candidates[rng.choice(len(candidates), 25, replace=False)]
    shaken = chosen + rng.normal(size=chosen.shape)
    found = orient(membrane, shaken, voxel_size_angstrom=VOXEL, grid_nm=grid_nm)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosine = (found * normal[tuple(chosen.T)]).sum(axis=1)
    angle = np.degrees(np.arccos(np.clip(np.abs(cosine), 0, 1)))
    assert np.median(angle) < median_degrees
    assert angle.max() < 12.0
    assert (cosine > 0).mean() >= 0.95


@pytest.mark.parametrize("voxel", [VOXEL, 40.0])
def test_normals_do_not_depend_on_threads(voxel: float) -> None:
    membrane, distance, _ = envelope((32, 100, 100), (16, 50, 50), (25, 40, 40))
    chosen = np.argwhere(distance < 1.0)[::400]
    found = []
    for threads in (1, 2, 5):
        with torch_threads(threads):
            found.append(orient(membrane, chosen, voxel_size_angstrom=voxel))
    assert len(chosen) > 10
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_normals_without_membrane_and_in_a_single_slice() -> None:
    empty = np.zeros((5, 60, 60), np.uint8)
    np.testing.assert_array_equal(orient(empty, [[2, 30, 30]], voxel_size_angstrom=VOXEL), [[1, 0, 0]])
    # A belt of membrane, and centres far above and far below it.
    belt = np.zeros((160, 12, 12), np.uint8)
    belt[78:84] = 1
    far = orient(belt, [[155, 6, 6], [2, 6, 6]], voxel_size_angstrom=VOXEL)
    np.testing.assert_array_equal(far, [[1, 0, 0], [-1, 0, 0]])
    y, x = np.mgrid[:120, :120]
    radius = np.hypot(y - 60, x - 60) * NM
    ring = (np.abs(np.abs(radius - 60) - 13) < 3.5)[None].astype(np.uint8)
    found = orient(ring, [[0, 60, 60 + 60 / NM]], voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(found, [[0, 0, 1]], atol=0.05)
    assert orient(ring, np.zeros((0, 3)), voxel_size_angstrom=VOXEL).shape == (0, 3)
