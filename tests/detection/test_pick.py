"""Picking: one peak for each particle, at its centre."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from t3ssfast.detection.pick import pick
from t3ssfast.detection.smooth_scores import SparseScores

VOXEL = 13.6


def blobs(
    shape: tuple[int, int, int], centres: list[tuple[float, float, float]], heights: list[float]
) -> np.ndarray:
    """Scores like a classifier's: wide along z, a few voxels in the plane."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    volume = np.zeros(shape)
    for centre, height in zip(centres, heights, strict=True):
        offset = (grid - centre) / np.array([7.0, 3.0, 3.0])
        volume = np.maximum(volume, height * np.exp(-0.5 * (offset**2).sum(axis=-1)))
    return volume.astype(np.float32)


def test_each_blob_gives_one_peak_at_its_centre() -> None:
    centres = [(20.3, 30.6, 41.2), (40.0, 30.0, 90.5), (25.0, 80.4, 60.0)]
    volume = blobs((60, 110, 120), centres, [0.95, 0.9, 0.85])
    found, score = pick(volume, voxel_size_angstrom=VOXEL, smoothing_nm=3.0)
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, centres, atol=0.1)
    assert (np.diff(score) < 0).all()
    assert ((score > 0.7) & (score <= 1)).all()


def test_slices_of_a_particle_are_joined_and_a_single_bright_slice_is_no_particle() -> None:
    rng = np.random.default_rng(3)
    particle = blobs((60, 64, 64), [(30, 32, 32)], [0.9]) * rng.choice([0.6, 1.0], size=(60, 1, 1))
    particle[12, 8:12, 48:52] = 1.0
    found, _ = pick(particle, voxel_size_angstrom=VOXEL)
    assert len(found) == 1
    np.testing.assert_allclose(found[0], [30, 32, 32], atol=1.0)


def test_only_classified_voxels_count() -> None:
    volume = blobs((40, 64, 64), [(20, 32, 32)], [0.95])
    mask = np.zeros(volume.shape, bool)
    mask[:, 22:42, 24:40] = True
    volume[~mask] = np.nan
    found, score = pick(SparseScores.from_dense(volume, mask), voxel_size_angstrom=VOXEL)
    assert len(found) == 1
    assert np.isfinite(score).all()
    np.testing.assert_allclose(found[0], [20, 32, 32], atol=0.2)


@pytest.mark.parametrize("z", [0, 39])
def test_particles_at_the_first_and_last_slice_are_found(z: int) -> None:
    found, score = pick(blobs((40, 48, 48), [(z, 24, 24)], [0.9]), voxel_size_angstrom=VOXEL)
    assert len(found) == 1
    assert score[0] > 0.5
    assert abs(found[0, 0] - z) < 6


def test_a_single_slice_is_enough() -> None:
    volume = blobs((1, 64, 64), [(0, 30, 33)], [0.9])
    found, score = pick(volume, voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(found, [[0, 30, 33]], atol=0.1)
    assert score[0] > 0.7


def test_peaks_keep_their_distance() -> None:
    rng = np.random.default_rng(0)
    volume = ndimage.gaussian_filter(rng.random((40, 90, 90)).astype(np.float32), 2)
    volume = (volume - volume.min()) / np.ptp(volume)
    found, score = pick(volume, voxel_size_angstrom=10.0, smoothing_nm=1.0, min_distance_nm=12.0)
    assert len(found) > 20
    # The distance holds for the peaks; centroids lie within a voxel or two of them.
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1) + 1e9 * np.eye(len(found))
    assert apart.min() > 12.0 - 4.0
    assert (np.diff(score) <= 0).all()
    few, _ = pick(volume, voxel_size_angstrom=10.0, smoothing_nm=1.0, min_distance_nm=12.0, max_candidates=5)
    np.testing.assert_array_equal(few, found[:5])


def test_equal_scores_are_ordered_by_position() -> None:
    volume = np.zeros((9, 100, 100), np.float32)
    for y, x in [(80, 20), (20, 80), (20, 20), (80, 80)]:
        volume[:, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    found, score = pick(volume, voxel_size_angstrom=VOXEL, smoothing_nm=0.0)
    assert (score == 1).all()
    np.testing.assert_allclose(found[:, 1:], [(20, 20), (20, 80), (80, 20), (80, 80)], atol=2.5)


def test_low_scores_give_no_peaks() -> None:
    for scores in [
        np.zeros((4, 5, 6), np.float32),
        SparseScores.from_slabs([], (4, 5, 6)),
        np.full((4, 60, 60), 0.3, np.float32),
    ]:
        for threshold in (0.5, 0.0) if not np.asarray(getattr(scores, "value", scores)).any() else (0.5,):
            centre, score = pick(scores, voxel_size_angstrom=VOXEL, threshold=threshold)
            assert centre.shape == (0, 3)
            assert score.shape == (0,)


def test_peaks_do_not_depend_on_the_slabs() -> None:
    volume = blobs((50, 64, 64), [(12, 20, 20), (30, 40, 40)], [0.9, 0.8])
    mask = volume > 0.01
    whole = pick(SparseScores.from_dense(volume, mask), voxel_size_angstrom=VOXEL)
    for thickness in (1, 7, 49):
        slabs = []
        for z in range(0, 50, thickness):
            part = SparseScores.from_dense(volume[z : z + thickness], mask[z : z + thickness])
            slabs.append((part.index + z * 64 * 64, part.value))
        again = pick(SparseScores.from_slabs(slabs, volume.shape), voxel_size_angstrom=VOXEL)
        np.testing.assert_array_equal(again[0], whole[0])
        np.testing.assert_array_equal(again[1], whole[1])


def test_columns_without_high_scores_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    volume = blobs((30, 96, 96), [(15, 30, 30)], [0.9])
    noise = volume + (0.2 * rng.random(volume.shape) * (volume < 1e-3)).astype(np.float32)
    classified = volume > 1e-3
    with_all = pick(SparseScores.from_dense(noise, np.ones_like(classified)), voxel_size_angstrom=VOXEL)
    near = ndimage.binary_dilation(classified, iterations=12)
    with_near = pick(SparseScores.from_dense(noise, near), voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(with_all[0], with_near[0], atol=1e-3)
