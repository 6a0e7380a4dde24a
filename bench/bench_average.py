"""Averaging: the pose of one particle against the plain way in torch, and a whole run against the truth.

The plain way turns the reference in real space with `grid_sample`, one rotation after the other, and
correlates by whole transforms of 64^3. Both search the same rotations with the same wedge, mask and band, one
thread each, and must find the same pose.

A whole run is 24 particles in a 44^3 box by default; ``T3SSFAST_BENCH_PARTICLES=200`` is that of the
documentation, in a 64^3 box. Particles are simulated, their poses disturbed as a detection leaves them; the
poses that come out must be right.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

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
from t3ssfast.simulation.subtomograms import Subtomograms, simulate_subtomograms

COUNT = int(os.environ.get("T3SSFAST_BENCH_PARTICLES", "24"))
BOX, VOXEL = (64, 13.6) if COUNT >= 100 else (44, 20.0)
STEP, CONE, RADIUS, SIZE = 8.0, 15.0, 12, 64
CPU = torch.device("cpu")


@cache
def particles() -> Subtomograms:
    return simulate_subtomograms(COUNT, 0, size=BOX + 12, voxel_size_angstrom=VOXEL)


def candidates() -> list[Candidates]:
    rng = np.random.default_rng(1)
    found = []
    for some in particles().truth:
        lean = Rotation.from_rotvec([*rng.normal(0, 5, 2), 0], degrees=True)
        normal, _ = normal_and_rot(rotation_of(some) * lean)
        centre = some.centre_zyx + rng.normal(0, 16 / VOXEL, (1, 3))
        found.append(replace(some, centre_zyx=centre, normal_zyx=normal, rot_degrees=np.zeros(1)))
    return found


def check(found: Average) -> None:
    between = [
        (rotation_of(t).inv() * rotation_of(c))[0]
        for t, c in zip(particles().truth, found.candidates, strict=True)
    ]
    matrices = np.array([b.as_matrix() for b in between])
    spin = np.arctan2(matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1])
    common = np.angle(np.exp(6j * spin).mean()) / 6
    turns = Rotation.from_euler("Z", (-common + np.arange(6) * np.pi / 3)[:, None])
    assert np.median([np.degrees((b * turns).magnitude().min()) for b in between]) < 5
    assert found.resolution_angstrom < 4 * VOXEL


@pytest.mark.benchmark(group=f"averaging {COUNT} particles of {BOX}^3, 5 iterations, C6")
def bench_average_t3ssfast(benchmark: BenchmarkFixture) -> None:
    config = AverageConfig(weed=False)
    check(
        benchmark.pedantic(
            lambda: average(particles().tomograms, candidates(), BOX, symmetry="C6", config=config)
        )
    )


@cache
def posed() -> tuple[torch.Tensor, torch.Tensor, int]:
    """A reference, a noisy particle made from it at one of the searched rotations, and which one that is."""
    density = torch.from_numpy(simulate_subtomograms(1, 0, size=SIZE).density)
    reference = density * soft_mask(SIZE, 17.6, 3.7, CPU)
    matrices = local_rotations(STEP, CONE, 1, CPU).matrix
    index = 500
    particle = turn_plainly(reference, matrices[index])
    noise = torch.randn(particle.shape, generator=torch.Generator().manual_seed(0))
    return reference, particle + noise, index


def turn_plainly(volume: torch.Tensor, matrix_zyx: torch.Tensor) -> torch.Tensor:
    xyz = matrix_zyx.T.flip(0, 1)
    theta = torch.cat([xyz, torch.zeros(3, 1)], dim=1)[None]
    # align_corners: the middle between the outer voxels stays where it is, half a voxel off n // 2.
    size = SIZE - 1
    odd = volume[1:, 1:, 1:][None, None]
    grid = affine_grid(theta, [1, 1, size, size, size], align_corners=True)
    out = torch.zeros_like(volume)
    out[1:, 1:, 1:] = grid_sample(odd, grid, align_corners=True)[0, 0]
    return out


@torch.inference_mode()
def ours() -> torch.Tensor:
    reference, particle, _ = posed()
    shells = Shells(SIZE, RADIUS, CPU)
    searched = local_rotations(STEP, CONE, 1, CPU)
    turned = Reference(reference, torch.ones(RADIUS + 1), shells, searched, RADIUS)
    shifts = ShiftSearch(shells, 4.0)
    wedge = wedge_weight(shells.frequency, (-60.0, 60.0))
    # A reference is turned once for all particles; here it is turned for one alone.
    return find_pose(turned, shells.transform(particle), wedge, shifts, shifts, 0, STEP).rotation


@torch.inference_mode()
def plainly() -> torch.Tensor:
    reference, particle, _ = posed()
    axis = torch.fft.fftfreq(SIZE, 1 / SIZE)
    half = torch.arange(SIZE // 2 + 1.0)
    k = torch.stack(torch.meshgrid(axis, axis, half, indexing="ij"), dim=-1)
    band = (k.norm(dim=-1) <= RADIUS) * wedge_weight(k, (-60.0, 60.0))
    seen = torch.fft.rfftn(particle) * band
    best, found = -1.0, torch.eye(3)
    for matrix in local_rotations(STEP, CONE, 1, CPU).matrix:
        view = torch.fft.rfftn(turn_plainly(reference, matrix))
        scores = torch.fft.irfftn(seen * view.conj(), s=(SIZE,) * 3)
        near = torch.fft.fftshift(scores)[28:37, 28:37, 28:37].max()
        value = float(near / (view.abs().square() * band).sum().sqrt())
        if value > best:
            best, found = value, matrix
    return found


def check_pose(found: torch.Tensor) -> None:
    truth = local_rotations(STEP, CONE, 1, CPU).matrix[posed()[2]]
    turn = Rotation.from_matrix((found.T @ truth).numpy()).magnitude()
    # The machine is six-fold: its turns by 60 degrees are as good.
    assert min(abs(np.degrees(turn) - 60 * j) for j in range(4)) < STEP


@pytest.fixture
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_t3ssfast(benchmark: BenchmarkFixture, one_thread: object) -> None:
    check_pose(benchmark.pedantic(ours, rounds=3, warmup_rounds=1))


@pytest.mark.benchmark(group="the pose of one particle of 64^3 among 855 rotations")
def bench_pose_plain_torch(benchmark: BenchmarkFixture, one_thread: object) -> None:
    check_pose(benchmark.pedantic(plainly, rounds=1))
