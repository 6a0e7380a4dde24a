"""Subtomogram averaging: the pose of one particle against plain PyTorch, and a whole run against the truth.

The baseline rotates the reference in real space with `grid_sample`, one rotation after the other, and
correlates by full 64^3 transforms. Both sides search the same rotations with the same wedge, mask and
resolution limit on one thread, and must find the same pose.

A whole run averages 24 simulated particles in a 44^3 box, with poses as inaccurate as those of a detection.
``T3SSFAST_BENCH_PARTICLES=200`` is the run of the documentation, in a 64^3 box. The refined poses must be
right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.spatial.transform import Rotation
from torch.nn.functional import affine_grid, grid_sample

from t3ssfast.averaging.average import Average, AverageConfig, average
from t3ssfast.averaging.extract import wedge_weight
from t3ssfast.averaging.fourier import Shells
from t3ssfast.averaging.mask import soft_mask
from t3ssfast.averaging.search import Reference, ShiftSearch, find_pose, local_rotations
from t3ssfast.candidates import Candidates
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.runtime.threads import torch_threads
from t3ssfast.simulation.subtomograms import Subtomograms, simulate_subtomograms

COUNT = int(os.environ.get("T3SSFAST_BENCH_PARTICLES", "24"))
BOX, VOXEL = (64, 13.6) if COUNT >= 100 else (44, 20.0)
STEP_DEGREES, CONE_DEGREES, RADIUS, SIZE = 8.0, 15.0, 12, 64
CPU = torch.device("cpu")


@cache
def particles() -> Subtomograms:
    return simulate_subtomograms(COUNT, 0, size=BOX + 12, voxel_size_angstrom=VOXEL)


def inaccurate_candidates() -> list[Candidates]:
    """Disturb the true poses: axis by 5 degrees, centre by 16 A (standard deviations), no rotation angle."""
    rng = np.random.default_rng(1)
    disturbed = []
    for truth in particles().truth:
        tilt = Rotation.from_rotvec([*rng.normal(0, 5, 2), 0], degrees=True)
        normal, _ = normal_and_rot(rotation_of(truth) * tilt)
        centre = truth.centre_zyx + rng.normal(0, 16 / VOXEL, (1, 3))
        disturbed.append(replace(truth, centre_zyx=centre, normal_zyx=normal, rot_degrees=np.zeros(1)))
    return disturbed


def check_average(found: Average) -> None:
    """Check resolution and orientations, up to a rotation of all particles and the six-fold symmetry."""
    differences = [
        (rotation_of(t).inv() * rotation_of(c))[0]
        for t, c in zip(particles().truth, found.candidates, strict=True)
    ]
    matrices = np.array([d.as_matrix() for d in differences])
    spin = np.arctan2(matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1])
    common = np.angle(np.exp(6j * spin).mean()) / 6
    symmetry = Rotation.from_euler("Z", (-common + np.arange(6) * np.pi / 3)[:, None])
    errors = [np.degrees((d * symmetry).magnitude().min()) for d in differences]
    assert np.median(errors) < 5
    assert found.resolution_angstrom < 4 * VOXEL


@pytest.mark.benchmark(group=f"averaging {COUNT} particles of {BOX}^3, 5 iterations, C6")
def bench_average_t3ssfast(benchmark: BenchmarkFixture) -> None:
    config = AverageConfig(weed=False)
    run = partial(average, particles().tomograms, inaccurate_candidates(), BOX, symmetry="C6", config=config)
    check_average(benchmark.pedantic(run))


@cache
def reference_and_particle() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Reference, noisy particle at one of the searched rotations, and the index of that rotation."""
    density = torch.from_numpy(simulate_subtomograms(1, 0, size=SIZE).density)
    reference = density * soft_mask(SIZE, 17.6, 3.7, CPU)
    matrices = local_rotations(STEP_DEGREES, CONE_DEGREES, 1, CPU).matrix
    index = 500
    particle = rotate_by_torch(reference, matrices[index])
    noise = torch.randn(particle.shape, generator=torch.Generator().manual_seed(0))
    return reference, particle + noise, index


def rotate_by_torch(volume: torch.Tensor, matrix_zyx: torch.Tensor) -> torch.Tensor:
    xyz = matrix_zyx.T.flip(0, 1)
    theta = torch.cat([xyz, torch.zeros(3, 1)], dim=1)[None]
    # align_corners keeps the middle of the outer voxels fixed, which is n // 2 for odd sizes only.
    size = SIZE - 1
    odd = volume[1:, 1:, 1:][None, None]
    grid = affine_grid(theta, [1, 1, size, size, size], align_corners=True)
    out = torch.zeros_like(volume)
    out[1:, 1:, 1:] = grid_sample(odd, grid, align_corners=True)[0, 0]
    return out


@torch.inference_mode()
def pose_by_t3ssfast() -> torch.Tensor:
    reference, particle, _ = reference_and_particle()
    shells = Shells(SIZE, RADIUS, CPU)
    rotations = local_rotations(STEP_DEGREES, CONE_DEGREES, 1, CPU)
    prepared = Reference(reference, torch.ones(RADIUS + 1), shells, rotations, RADIUS)
    shifts = ShiftSearch(shells, 4.0)
    wedge = wedge_weight(shells.frequency, (-60.0, 60.0))
    # A reference is rotated once for all particles; here that time counts for a single one.
    return find_pose(prepared, shells.transform(particle), wedge, shifts, shifts, 0, STEP_DEGREES).rotation


@torch.inference_mode()
def pose_by_torch() -> torch.Tensor:
    reference, particle, _ = reference_and_particle()
    axis = torch.fft.fftfreq(SIZE, 1 / SIZE)
    half = torch.arange(SIZE // 2 + 1.0)
    k = torch.stack(torch.meshgrid(axis, axis, half, indexing="ij"), dim=-1)
    band = (k.norm(dim=-1) <= RADIUS) * wedge_weight(k, (-60.0, 60.0))
    transform = torch.fft.rfftn(particle) * band
    best_score, best = -1.0, torch.eye(3)
    for matrix in local_rotations(STEP_DEGREES, CONE_DEGREES, 1, CPU).matrix:
        view = torch.fft.rfftn(rotate_by_torch(reference, matrix))
        scores = torch.fft.irfftn(transform * view.conj(), s=(SIZE,) * 3)
        peak = torch.fft.fftshift(scores)[28:37, 28:37, 28:37].max()
        score = float(peak / (view.abs().square() * band).sum().sqrt())
        if score > best_score:
            best_score, best = score, matrix
    return best


def check_pose(found: torch.Tensor) -> None:
    truth = local_rotations(STEP_DEGREES, CONE_DEGREES, 1, CPU).matrix[reference_and_particle()[2]]
    angle = Rotation.from_matrix((found.T @ truth).numpy()).magnitude()
    # Rotations by 60 degrees are equivalent, because the particle has six-fold symmetry.
    assert min(abs(np.degrees(angle) - 60 * j) for j in range(4)) < STEP_DEGREES


@pytest.fixture
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_t3ssfast(benchmark: BenchmarkFixture) -> None:
    check_pose(benchmark.pedantic(pose_by_t3ssfast, rounds=3, warmup_rounds=1))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_plain_torch(benchmark: BenchmarkFixture) -> None:
    check_pose(benchmark.pedantic(pose_by_torch, rounds=1))
