"""Averages compared with the truth, independence of the half sets, and invalid arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from simulated_particles import (
    BOX,
    CONFIG,
    CPU,
    VOXEL_ANGSTROM,
    perturbed,
    rotation_errors_degrees,
    simulate_subtomograms,
    true_density,
)
from t3ssfast.averaging.average import AverageConfig, average
from t3ssfast.averaging.fourier import FourierShells, rotate_and_shift
from t3ssfast.averaging.refine import N_GROUPS, split_particles
from t3ssfast.averaging.resolution import shell_correlation
from t3ssfast.averaging.stack import zyx_matrices
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, T3Error
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram

ONE_ITERATION = replace(CONFIG, iterations=1, reject_outliers=False)


def is_t3ss(simulated):
    return np.array([some.kind[0] == "t3ss" for some in simulated.truth])


def test_refined_poses_are_close_to_the_truth(simulated, result):
    true = is_t3ss(simulated)
    found, truth, before = (
        [some for some, chosen in zip(sets, true, strict=True) if chosen]
        for sets in (result.candidates, simulated.truth, perturbed(simulated.truth))
    )
    assert np.median(rotation_errors_degrees(found, truth, 6)) < 5
    moved, perturbation = (
        [np.linalg.norm(a.centre_zyx - b.centre_zyx) for a, b in zip(sets, truth, strict=True)]
        for sets in (found, before)
    )
    assert np.median(moved) < 0.7 * np.median(perturbation)


def test_map_agrees_with_the_noise_free_density(simulated, result):
    mask = torch.from_numpy(result.mask)
    shells = FourierShells(BOX, BOX // 2 - 1, CPU)
    mean = torch.from_numpy(np.mean(result.half_maps, axis=0))
    density = shells.transform(true_density(simulated) * mask)
    # The rotation of the average about its axis is arbitrary.
    rotations = zyx_matrices(Rotation.from_euler("Z", np.arange(0, 60, 4.0)[:, None], degrees=True), CPU)
    curves = [
        shell_correlation(
            shells.transform(rotate_and_shift(mean, rotation, torch.zeros(3)) * mask), density, shells
        )
        for rotation in rotations
    ]
    best = max(curves, key=lambda curve: float(curve[:9].sum()))
    assert (best[1 : BOX // 4 + 1] > 0.5).all(), "FSC = 0.5 at 4 voxels or finer"
    assert result.resolution_angstrom < 4 * VOXEL_ANGSTROM
    assert result.fsc.half_angstrom < 4.5 * VOXEL_ANGSTROM


def test_outliers_are_rejected(simulated, result):
    kept, true = np.concatenate(result.kept), is_t3ss(simulated)
    assert (~kept[~true]).mean() >= 0.8
    assert (~kept[true]).mean() <= 0.1
    assert [len(some) for some in result.curated] == kept.astype(int).tolist()
    everything = average(simulated.tomograms[:8], perturbed(simulated.truth[:8]), BOX, config=ONE_ITERATION)
    assert np.concatenate(everything.kept).all()


def test_axes_stay_in_the_cone_and_positions_in_the_shift_range(simulated, result):
    for some, prior in zip(result.candidates, perturbed(simulated.truth), strict=True):
        cosine = float(np.sum(some.normal_zyx * prior.normal_zyx))
        # The alignment of the half maps may add up to 5 degrees.
        assert np.degrees(np.arccos(min(cosine, 1))) < CONFIG.cone_degrees + 5.1
        shift_nm = np.abs(some.centre_zyx - prior.centre_zyx).max() * VOXEL_ANGSTROM / 10
        assert shift_nm < 3 * CONFIG.max_shift_nm


def test_average_of_a_simulated_tomogram():
    options = {"t3ss_per_cell": 8, "noise_scale": 0.7, "cell_flattening": 0.9}
    simulation = simulate(5, (56, 150, 150), VOXEL_ANGSTROM, **options)
    assert len(simulation.truth) >= 6
    config = replace(CONFIG, iterations=2, reject_outliers=False, max_shift_nm=3.0)
    found = average(simulation.tomogram, simulation.truth, box_nm=80, symmetry="C6", config=config)
    size = found.map.shape[0]
    density = simulate_subtomograms(1, 0, size=size, voxel_size_angstrom=VOXEL_ANGSTROM).density
    mask = torch.from_numpy(found.mask)
    shells = FourierShells(size, 10, CPU)
    mean = torch.from_numpy(np.mean(found.half_maps, axis=0))
    transforms = [shells.transform(volume * mask) for volume in (mean, torch.from_numpy(density))]
    # Membranes, base and needle correlate up to 16 nm, whatever the rotation about the axis.
    assert shell_correlation(*transforms, shells)[1:6].mean() > 0.6
    assert [len(some) for some in found.candidates] == [len(simulation.truth)]


def noise_particles(count, seed=0):
    rng = np.random.default_rng(seed)
    shape = (50, 50, 50)
    tomograms = [
        Tomogram(rng.normal(size=shape).astype(np.float32), VOXEL_ANGSTROM, f"n{i}") for i in range(count)
    ]
    normals = rng.normal(size=(count, 1, 3))
    return tomograms, [
        Candidates([[25, 25, 25]], [1], normal, VOXEL_ANGSTROM, shape, f"n{i}")
        for i, normal in enumerate(normals)
    ]


@pytest.mark.parametrize(("lowpass", "iterations"), [(130.0, 2), (70.0, 1)])
def test_noise_aligned_to_a_reference_has_no_resolution(simulated, lowpass, iterations):
    tomograms, candidates = noise_particles(16)
    config = replace(ONE_ITERATION, iterations=iterations, initial_resolution_angstrom=lowpass)
    reference = true_density(simulated).numpy()
    found = average(tomograms, candidates, BOX, reference=reference, config=config)
    assert np.isnan(found.resolution_angstrom)
    assert np.isnan(found.fsc.half_angstrom)
    shared = round(BOX * VOXEL_ANGSTROM / lowpass)
    beyond = slice(shared + 2, None)
    assert abs(found.fsc.correlation[beyond].mean()) < 0.143
    limit = np.maximum(0.143, found.fsc.noise[beyond] * 4 / 3)
    assert (np.abs(found.fsc.correlation[beyond]) < limit).all()
    if lowpass < 100:
        # The bias is real: at coarser resolution, the reference made the half maps alike.
        assert found.fsc.masked[2:shared].mean() > 0.1


def test_noise_aligned_to_its_own_average_has_no_resolution():
    config = replace(CONFIG, reject_outliers=False)
    found = average(*noise_particles(16, seed=3), BOX, symmetry="C3", config=config)
    assert np.isnan(found.resolution_angstrom)
    assert found.summary()["resolution_angstrom"] is None


def test_half_sets_are_independent(simulated):
    tomograms, prior = simulated.tomograms[:10], perturbed(simulated.truth[:10])
    first = average(tomograms, prior, BOX, config=ONE_ITERATION)
    half = np.concatenate(first.half)
    assert sorted(np.bincount(half)) == [5, 5]
    # The second half set upside down: different structures with the same noise spectrum.
    changed = [
        replace(tomogram, data=tomogram.data[::-1, ::-1].copy()) if number == 1 else tomogram
        for tomogram, number in zip(tomograms, half, strict=True)
    ]
    second = average(changed, prior, BOX, config=ONE_ITERATION)
    scale = np.abs(first.half_maps[0]).max()
    np.testing.assert_allclose(first.half_maps[0], second.half_maps[0], atol=2e-2 * scale)
    assert np.abs(first.half_maps[1] - second.half_maps[1]).max() > 0.2 * scale


def test_particles_are_not_aligned_to_themselves():
    half_set, group = split_particles(23, 0)
    assert abs(np.diff(np.bincount(half_set))[0]) <= 1
    assert set(group) == set(range(N_GROUPS))
    found = average(*noise_particles(10, seed=1), BOX, config=ONE_ITERATION)
    score = np.concatenate([some.score for some in found.candidates])
    # Correlation of noise with the average of itself and four others.
    assert score.max() < 0.8 / np.sqrt(5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"symmetry": "D2"}, "symmetry"),
        ({"symmetry": "C0"}, "symmetry"),
        ({"box": 31}, "even"),
        ({"box": None}, "box"),
        ({"mask": np.ones((8, 8, 8))}, "mask"),
        ({"reference": np.ones((8, 8, 8))}, "reference"),
        ({"candidates": []}, "each tomogram"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_invalid_arguments(simulated, arguments, match):
    valid = {"tomograms": simulated.tomograms[:2], "candidates": simulated.truth[:2], "box": BOX}
    with pytest.raises(T3Error, match=match) as error:
        average(**(valid | arguments))
    assert "\n" not in str(error.value)


def test_too_few_or_empty_particles(simulated):
    with pytest.raises(InputError, match="at least 2"):
        average(simulated.tomograms[0], simulated.truth[0], BOX)
    empty = Tomogram(np.zeros((36, 36, 36), np.float32), VOXEL_ANGSTROM)
    some = Candidates(np.full((3, 3), 18.0), np.ones(3), np.eye(3), VOXEL_ANGSTROM)
    with pytest.raises(InputError, match="empty"):
        average(empty, some, BOX, config=CONFIG)
    same = [replace(some, tomogram_name="a") for some in simulated.truth[:2]]
    with pytest.raises(InputError, match="'a'"):
        average(simulated.tomograms[:2], same, BOX, config=CONFIG)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"cone_degrees": -1},
        {"tilt_range_degrees": (60, -60)},
        {"contrast": "grey"},
        {"b_factor": float("nan")},
        {"mask_radius_nm": 0},
        {"finest_alignment_voxels": 1},
        {"threads": 0},
    ],
)
def test_invalid_options(options):
    with pytest.raises(
        ConfigError, match="tilt range" if "tilt_range_degrees" in options else next(iter(options))
    ):
        AverageConfig(**options)
