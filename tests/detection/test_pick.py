"""Picking: one candidate a particle, where it is, and which way it points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import t3ssfast.detection.pick as pick_module
from t3ssfast.detection.orient import orient
from t3ssfast.detection.pick import SparseScores, _smooth_lines, pick, smooth_slabs
from t3ssfast.errors import InputError
from threads import on_threads

VOXEL = 13.6
NM = VOXEL / 10


def blobs(
    shape: tuple[int, int, int], centres: list[tuple[float, float, float]], heights: list[float]
) -> np.ndarray:
    """Scores as a classifier gives them: wide along z, a few voxels in the plane."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    volume = np.zeros(shape)
    for centre, height in zip(centres, heights, strict=True):
        offset = (grid - centre) / np.array([7.0, 3.0, 3.0])
        volume = np.maximum(volume, height * np.exp(-0.5 * (offset**2).sum(axis=-1)))
    return volume.astype(np.float32)


def test_each_blob_gives_one_candidate_at_its_centre() -> None:
    centres = [(20.3, 30.6, 41.2), (40.0, 30.0, 90.5), (25.0, 80.4, 60.0)]
    volume = blobs((60, 110, 120), centres, [0.95, 0.9, 0.85])
    found, score = pick(volume, voxel_size_angstrom=VOXEL, smoothing_nm=3.0)
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, centres, atol=0.1)
    assert (np.diff(score) < 0).all()
    assert ((score > 0.7) & (score <= 1)).all()


def test_slices_of_one_particle_are_joined_and_a_lone_slice_is_not_a_particle() -> None:
    rng = np.random.default_rng(3)
    particle = blobs((60, 64, 64), [(30, 32, 32)], [0.9]) * rng.choice([0.6, 1.0], size=(60, 1, 1))
    particle[12, 8:12, 48:52] = 1.0
    found, _ = pick(particle, voxel_size_angstrom=VOXEL)
    assert len(found) == 1
    np.testing.assert_allclose(found[0], [30, 32, 32], atol=1.0)


def test_judged_voxels_are_all_that_counts() -> None:
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


def test_candidates_keep_their_distance() -> None:
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


def test_equal_scores_are_taken_in_order_of_position() -> None:
    volume = np.zeros((9, 100, 100), np.float32)
    for y, x in [(80, 20), (20, 80), (20, 20), (80, 80)]:
        volume[:, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    found, score = pick(volume, voxel_size_angstrom=VOXEL, smoothing_nm=0.0)
    assert (score == 1).all()
    np.testing.assert_allclose(found[:, 1:], [(20, 20), (20, 80), (80, 20), (80, 80)], atol=2.5)


def test_nothing_is_found_in_nothing() -> None:
    for scores in [
        np.zeros((4, 5, 6), np.float32),
        SparseScores.from_slabs([], (4, 5, 6)),
        np.full((4, 60, 60), 0.3, np.float32),
    ]:
        for threshold in (0.5, 0.0) if not np.asarray(getattr(scores, "value", scores)).any() else (0.5,):
            centre, score = pick(scores, voxel_size_angstrom=VOXEL, threshold=threshold)
            assert centre.shape == (0, 3)
            assert score.shape == (0,)


def test_how_the_slabs_were_cut_does_not_matter() -> None:
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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.4, 5.0), st.floats(0.1, 1.0))
def test_smoothing_of_lines_is_a_normalised_convolution(seed: int, sigma: float, fill: float) -> None:
    rng = np.random.default_rng(seed)
    lines, length = 5, int(rng.integers(1, 60))
    dense = rng.random((lines, length)).astype(np.float32)
    judged = rng.random(dense.shape) < fill
    line, position = np.nonzero(judged)
    if not len(line):
        return
    got = _smooth_lines(dense[judged], line, position, length, sigma)
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.correlate1d(values.astype(np.float64), kernel, axis=1, mode="constant")

    expected = blur(dense * judged) / blur(np.ones_like(dense))
    np.testing.assert_allclose(got, expected[judged], rtol=1e-5, atol=1e-7)


def test_bands_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = blobs((20, 40, 44), [(8, 12, 12), (12, 25, 30)], [0.9, 0.8])
    whole = pick(volume, voxel_size_angstrom=VOXEL)
    monkeypatch.setattr(pick_module, "BAND_VOXELS", 777)
    banded = pick(volume, voxel_size_angstrom=VOXEL)
    np.testing.assert_array_equal(banded[0], whole[0])
    np.testing.assert_array_equal(banded[1], whole[1])


def test_columns_without_high_scores_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    volume = blobs((30, 96, 96), [(15, 30, 30)], [0.9])
    noise = volume + (0.2 * rng.random(volume.shape) * (volume < 1e-3)).astype(np.float32)
    judged = volume > 1e-3
    with_all = pick(SparseScores.from_dense(noise, np.ones_like(judged)), voxel_size_angstrom=VOXEL)
    near = ndimage.binary_dilation(judged, iterations=12)
    with_near = pick(SparseScores.from_dense(noise, near), voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(with_all[0], with_near[0], atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(st.integers(1, 70), st.integers(9, 40), st.integers(9, 40)),
    st.integers(1, 30),
    st.floats(0.05, 0.9),
    st.just(0.0) | st.floats(0.1, 9),
    st.integers(0, 2**31),
)
def test_scores_are_smoothed_alike_however_they_come(shape, thickness, threshold, smoothing_nm, seed) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(shape, np.float32)
    judged = rng.random(shape) < 0.5
    options = {"voxel_size_angstrom": VOXEL, "smoothing_nm": smoothing_nm, "threshold": threshold}
    whole = SparseScores.from_dense(scores, judged)
    plane = shape[1] * shape[2]
    edges = np.searchsorted(whole.index, np.arange(0, shape[0] + thickness, thickness) * plane)
    slabs = ((whole.index[a:b], whole.value[a:b]) for a, b in pairwise(edges))
    smoothed = smooth_slabs(slabs, shape, **options)
    at_once = smooth_slabs([(whole.index, whole.value)], shape, **options)
    np.testing.assert_array_equal(smoothed.index, at_once.index)
    np.testing.assert_array_equal(smoothed.value, at_once.value)
    sigma = smoothing_nm / NM
    every = pick_module._smooth(whole, (sigma, sigma / 4, sigma / 4))
    high = every.value >= threshold / 2
    np.testing.assert_array_equal(smoothed.index, every.index[high])
    np.testing.assert_array_equal(smoothed.value, every.value[high])
    for ours, expected in zip(pick(smoothed, **options), pick(whole, **options), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="one score a voxel"):
        SparseScores(np.arange(3), np.zeros(2, np.float32), (1, 2, 3))
    with pytest.raises(InputError, match="mask of the same shape"):
        SparseScores.from_dense(np.zeros((2, 3, 4)), np.zeros((2, 3), bool))


# ------------------------------------------------------------------------------------------------------ poses


def envelope(
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    wedge_degrees: float = 60.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both membranes of an ellipsoidal cell cut by the volume, without the parts that face the beam.

    Returns the mask, the distance (nm) from the middle of the periplasm where a membrane is left, else
    infinity, and the outward normals.
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


@pytest.mark.parametrize(
    ("centre", "radii"),
    [
        ((32, 75, 75), (120.0, 90.0, 90.0)),
        ((10, 40, 140), (110.0, 140.0, 100.0)),  # cut by three faces of the volume
        ((70, -60, 75), (200.0, 170.0, 230.0)),  # its centre lies outside
    ],
)
def test_normals_point_out_of_the_cell(
    centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(1)
    membrane, distance, normal = envelope((64, 150, 150), centre, radii)
    # A torn mask with a vesicle beside the cell, as a network would answer.
    holes = ndimage.gaussian_filter(rng.normal(size=membrane.shape).astype(np.float32), 4)
    membrane[holes > np.quantile(holes, 0.8)] = 0
    candidates = np.argwhere(distance < 1.0)
    chosen = candidates[rng.choice(len(candidates), 25, replace=False)]
    shaken = chosen + rng.normal(size=chosen.shape)
    found = orient(membrane, shaken, voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosine = (found * normal[tuple(chosen.T)]).sum(axis=1)
    angle = np.degrees(np.arccos(np.clip(np.abs(cosine), 0, 1)))
    assert np.median(angle) < 3.0
    assert angle.max() < 12.0
    assert (cosine > 0).mean() >= 0.95


@pytest.mark.parametrize("voxel", [VOXEL, 40.0])
def test_normals_do_not_depend_on_threads(voxel: float) -> None:
    membrane, distance, _ = envelope((32, 100, 100), (16, 50, 50), (25, 40, 40))
    chosen = np.argwhere(distance < 1.0)[::400]
    found = []
    for threads in (1, 2, 5):
        with on_threads(threads):
            found.append(orient(membrane, chosen, voxel_size_angstrom=voxel))
    assert len(chosen) > 10
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_normal_exists_without_any_membrane_and_in_one_slice() -> None:
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
