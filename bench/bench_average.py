"""Averaging: search for the pose of one particle compared with plain PyTorch, and a whole run.

The plain search rotates the reference in real space with `grid_sample`, one rotation after the other, and
correlates by full transforms of 64^3. Both search the same rotations with the same missing wedge, mask and
band, one thread each, and must find the same pose.

A whole run has 24 particles in a 44^3 box by default; ``T3SSFAST_BENCH_PARTICLES=200`` is that of the
documentation, in a 64^3 box. Particles are simulated and their poses perturbed as a detection finds them; the
refined poses must be right.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.spatial.transform import Rotation
from torch.nn.functional import affine_grid, grid_sample

from simulated_particles import (
    CPU,
    Subtomograms,
    perturbed,
    rotation_errors_degrees,
    simulate_subtomograms,
)
from t3ssfast.averaging.average import Average, AverageConfig, average, soft_mask
from t3ssfast.averaging.fourier import FourierShells
from t3ssfast.averaging.missing_wedge import missing_wedge_weights
from t3ssfast.averaging.search import RotatedReference, ShiftSearch, find_pose, rotation_grid

COUNT = int(os.environ.get("T3SSFAST_BENCH_PARTICLES", "24"))
BOX, VOXEL_ANGSTROM = (64, 13.6) if COUNT >= 100 else (44, 20.0)
SIZE, RADIUS, STEP_DEGREES, CONE_DEGREES = 64, 12, 8.0, 15.0
TILT_RANGE = (-60.0, 60.0)
# The rotation of the grid in which the particle of the pose search is.
TRUE_ROTATION = 500
GRID = rotation_grid(STEP_DEGREES, CONE_DEGREES, 1, CPU)


@cache
def particles() -> Subtomograms:
    return simulate_subtomograms(COUNT, 0, size=BOX + 12, voxel_size_angstrom=VOXEL_ANGSTROM)


def check(found: Average) -> None:
    assert np.median(rotation_errors_degrees(found.candidates, particles().truth, 6)) < 5
    assert found.resolution_angstrom < 4 * VOXEL_ANGSTROM


@pytest.mark.benchmark(group=f"averaging {COUNT} particles of {BOX}^3, 5 iterations, C6")
def bench_average_t3ssfast(benchmark: BenchmarkFixture) -> None:
    config = AverageConfig(reject_outliers=False)
    candidates = perturbed(particles().truth, 1, voxels=16 / VOXEL_ANGSTROM)
    check(
        benchmark.pedantic(
            lambda: average(particles().tomograms, candidates, BOX, symmetry="C6", config=config)
        )
    )


@cache
def reference_and_particle() -> tuple[torch.Tensor, torch.Tensor]:
    """A reference, and a noisy particle made from it."""
    density = torch.from_numpy(simulate_subtomograms(1, 0, size=SIZE).density)
    reference = density * soft_mask(SIZE, 17.6, 3.7, CPU)
    particle = rotate_in_real_space(reference, GRID.matrix[TRUE_ROTATION])
    noise = torch.randn(particle.shape, generator=torch.Generator().manual_seed(0))
    return reference, particle + noise


def rotate_in_real_space(volume: torch.Tensor, matrix_zyx: torch.Tensor) -> torch.Tensor:
    theta = torch.cat([matrix_zyx.T.flip(0, 1), torch.zeros(3, 1)], dim=1)[None]
    # Without the first voxels, the centre of the grid is voxel n // 2.
    size = SIZE - 1
    grid = affine_grid(theta, [1, 1, size, size, size], align_corners=True)
    rotated = torch.zeros_like(volume)
    rotated[1:, 1:, 1:] = grid_sample(volume[1:, 1:, 1:][None, None], grid, align_corners=True)[0, 0]
    return rotated


@torch.inference_mode()
def search_t3ssfast() -> torch.Tensor:
    volume, particle = reference_and_particle()
    shells = FourierShells(SIZE, RADIUS, CPU)
    # In a run, the rotated references are computed once for many particles.
    reference = RotatedReference(volume, torch.ones(RADIUS + 1), shells, GRID, RADIUS)
    shifts = ShiftSearch(shells, 4.0)
    wedge = missing_wedge_weights(shells.frequency, TILT_RANGE)
    return find_pose(reference, shells.transform(particle), wedge, shifts, shifts, 0).rotation


@torch.inference_mode()
def search_plain_torch() -> torch.Tensor:
    volume, particle = reference_and_particle()
    axis = torch.fft.fftfreq(SIZE, 1 / SIZE)
    k = torch.stack(torch.meshgrid(axis, axis, torch.arange(SIZE // 2 + 1.0), indexing="ij"), dim=-1)
    band = (k.norm(dim=-1) <= RADIUS) * missing_wedge_weights(k, TILT_RANGE)
    measured = torch.fft.rfftn(particle) * band
    best, found = -1.0, torch.eye(3)
    for matrix in GRID.matrix:
        transform = torch.fft.rfftn(rotate_in_real_space(volume, matrix))
        scores = torch.fft.irfftn(measured * transform.conj(), s=(SIZE,) * 3)
        highest = torch.fft.fftshift(scores)[28:37, 28:37, 28:37].max()
        value = float(highest / (transform.abs().square() * band).sum().sqrt())
        if value > best:
            best, found = value, matrix
    return found


def check_pose(found: torch.Tensor) -> None:
    angle = np.degrees(Rotation.from_matrix((found.T @ GRID.matrix[TRUE_ROTATION]).numpy()).magnitude())
    # Six-fold symmetry: rotations by multiples of 60 degrees are equivalent.
    assert min(abs(angle - 60 * j) for j in range(4)) < STEP_DEGREES


@pytest.fixture
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_t3ssfast(benchmark: BenchmarkFixture, one_thread: object) -> None:
    check_pose(benchmark.pedantic(search_t3ssfast, rounds=3, warmup_rounds=1))


@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_plain_torch(benchmark: BenchmarkFixture, one_thread: object) -> None:
    check_pose(benchmark.pedantic(search_plain_torch, rounds=1))
