"""One iteration: align the particles to the references of their half set, average, align the half maps.

A particle that is part of its reference matches its own noise: it keeps its pose and scores too well. Each
half set therefore has several references, each without one group of particles, and the particles of a group
are aligned to the reference without them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.fourier import FourierInterpolator, FourierShells, phase_ramp, rotate_and_shift
from t3ssfast.averaging.missing_wedge import missing_wedge_weights
from t3ssfast.averaging.reject_outliers import reject_outliers
from t3ssfast.averaging.resolution import FSC_THRESHOLD, FourierShellCorrelation, half_map_fsc
from t3ssfast.averaging.search import Pose, RotatedReference, ShiftSearch, find_pose, rotation_grid
from t3ssfast.averaging.stack import ParticleStack, zyx_matrices
from t3ssfast.errors import InputError
from t3ssfast.runtime.checkpoint import CheckpointStore

__all__ = ["N_GROUPS", "Refinement", "State", "split_particles"]

Tensor = torch.Tensor
Float32 = npt.NDArray[np.float32]
Advance = Callable[[int], None]
Result = TypeVar("Result")

# Highest frequency of the global search: 12 cycles per box separate rotations 5 degrees apart at its rim.
COARSE_RADIUS = 12
N_GROUPS = 5  # Groups per half set. Each reference lacks one of them: a fifth of the half set's signal.
# Added to the sum of missing-wedge weights, to damp frequencies that hardly any particle has measured.
WEIGHT_REGULARISATION = 0.5
# Search that aligns the second half map to the first.
HALF_MAP_STEP_DEGREES = 5.0
HALF_MAP_CONE_DEGREES = 5.0
HALF_MAP_SHIFT_VOXELS = 3.0
HALF_MAP_REFINEMENTS = 4


@dataclass(frozen=True)
class State:
    """The result of an iteration for n particles: what a checkpoint holds."""

    iteration: int  # Number of finished iterations.
    rotation: Float32  # (n, 3, 3) particle-to-tomogram rotations, acting on zyx vectors.
    offset: Float32  # (n, 3) positions relative to voxel box // 2 of each box, zyx voxels.
    # (n,) correlations with the reference of the particle's half set; NaN before the first iteration.
    score: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]  # (n,) whether the particle is part of the averages.
    halves: Float32  # (2, box, box, box) half maps, aligned to each other.
    references: Float32  # (2, groups, box, box, box) half maps without one group of their particles.

    @classmethod
    def load(cls, store: CheckpointStore, max_iterations: int) -> State | None:
        """Load the stored state; None if there is none, or one of more than `max_iterations` iterations."""

        def parse(arrays: dict[str, npt.NDArray[Any]]) -> State:
            return cls(int(arrays.pop("iteration")), **arrays)

        state: State | None = store.load("state", parse)
        return None if state is None or state.iteration > max_iterations else state


class Refinement:
    """Refinement of the poses of a stack of particles, about an axis of `fold`-fold symmetry.

    `mask` is (n, n, n), and so is the initial `reference`; None: the average of each half set at the prior
    poses. A CPU processes as many particles in parallel as there are `threads`. Particles that are not
    `of_kind` (n,) are aligned, and never averaged.
    """

    def __init__(
        self,
        stack: ParticleStack,
        mask: Tensor,
        fold: int,
        config: AverageConfig,
        reference: Tensor | None,
        threads: int,
        of_kind: npt.NDArray[np.bool_],
    ) -> None:
        self.of_kind = of_kind
        self.stack, self.mask, self.fold, self.config = stack, mask, fold, config
        self.reference, self.threads = reference, threads
        self.size, self.device = stack.size, stack.device
        self.shells = FourierShells(self.size, self.size // 2 - 1, self.device)
        radius = self.size * stack.voxel_size_angstrom / config.initial_resolution_angstrom
        self.initial_radius = min(max(round(radius), 3), self.shells.radius)
        self.half_set, self.group = split_particles(len(stack), config.seed)
        self.noise, self.checksum = torch.ones(self.shells.radius + 1, device=self.device), 0

    @property
    def shared_angstrom(self) -> float:
        """Resolution up to which the half sets share information."""
        return self.size * self.stack.voxel_size_angstrom / self.initial_radius

    def fsc(self, halves: Tensor, **options: Any) -> FourierShellCorrelation:
        """Compute the Fourier shell correlation of (2, n, n, n) half maps under the mask."""
        return half_map_fsc(halves, self.mask, self.stack.voxel_size_angstrom, fold=self.fold, **options)

    def measure_noise(self, advance: Advance) -> None:
        """Measure the mean amplitude of the particles, almost all noise, per shell, and the boxes' CRC-32."""
        power = torch.zeros(self.shells.radius + 1, dtype=torch.float64, device=self.device)
        for index in range(len(self.stack)):
            box = self.stack.box(index)
            self.checksum = zlib.crc32(box.cpu().numpy().tobytes(), self.checksum)
            values = self.shells.transform(box).abs().square()
            power += self.shells.shell_mean(values).double()
            advance(1)
        amplitude = (power / len(self.stack)).sqrt()
        if not float(amplitude[1:].max()) > 0:
            raise InputError("The boxes of all candidates are empty; check the tomograms and the positions.")
        # Boxes have mean 0, so the origin holds no estimate.
        amplitude[0] = amplitude[1]
        self.noise = amplitude.clamp_min(1e-6 * float(amplitude.max())).float()

    def initial_state(self) -> State:
        """Return the state before the first iteration: prior poses, and empty averages."""
        rotation, offset = self.stack.rotation.cpu().numpy(), self.stack.offset.cpu().numpy()
        score, kept = np.full(len(offset), np.nan), self._with_both_half_sets(self.of_kind)
        references = np.zeros((2, N_GROUPS, *(self.size,) * 3), np.float32)
        return State(0, rotation, offset, score, kept, references[:, 0].copy(), references)

    def iterate(self, state: State, advance: Advance) -> State:
        """Align and average once. `advance` is called with 1 twice per particle, at first three times."""
        if state.iteration > 0:
            references = torch.from_numpy(state.references).to(self.device)
            weight = self._fsc_weight(torch.from_numpy(state.halves).to(self.device))
        else:
            if self.reference is not None:
                references = self.reference.expand(2, N_GROUPS, *self.reference.shape)
            else:
                _, references = self._average(self.stack.rotation, self.stack.offset, state.kept, advance)
            # A soft low-pass filter.
            shell = torch.arange(self.initial_radius + 3, device=self.device)
            weight = torch.sigmoid(2.0 * (self.initial_radius - shell))[: self.shells.radius + 1]
        rotation, offset, score = self._align(references, weight, state.iteration, advance)
        kept = self._kept(score, state.iteration)
        halves, references = self._average(rotation, offset, kept, advance)
        aligned = self._align_half_maps(halves, references, rotation, offset)
        half_maps, without, rotations, offsets = (tensor.cpu().numpy() for tensor in aligned)
        return State(state.iteration + 1, rotations, offsets, score, kept, half_maps, without)

    def _fsc_weight(self, halves: Tensor) -> Tensor:
        """Return the (s,) shell weights ``sqrt(2 F / (1 + F))`` of the FSC F (Rosenthal & Henderson 2003)."""
        correlation = torch.from_numpy(self.fsc(halves).correlation).to(self.device)
        below = torch.nonzero(correlation < FSC_THRESHOLD)
        crossing = int(below[0]) if len(below) else self.shells.radius
        initial, finest = self.initial_radius, int(self.size / self.config.finest_alignment_voxels)
        radius = min(max(crossing, initial), max(finest, initial), self.shells.radius)
        signal = correlation[: radius + 1].clamp(0.0, 1.0)
        signal[: initial + 1] = signal[: initial + 1].clamp_min(FSC_THRESHOLD)
        return (2 * signal / (1 + signal)).sqrt().float()

    def _kept(self, score: npt.NDArray[np.float64], iteration: int) -> npt.NDArray[np.bool_]:
        """Return (n,) bool, whether each particle is averaged in an iteration, counted from 0."""
        kept = self.of_kind.copy()
        if self.config.reject_outliers and iteration >= min(2, self.config.iterations - 1):
            kept[kept] = reject_outliers(score[kept])
        return self._with_both_half_sets(kept)

    def _with_both_half_sets(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Keep all particles of a half set that would become empty."""
        kept = kept.copy()
        for number in (0, 1):
            if not kept[self.half_set == number].any():
                kept[self.half_set == number] = True
        return kept

    def _align(
        self, references: Tensor, weight: Tensor, iteration: int, advance: Advance
    ) -> tuple[Tensor, Tensor, npt.NDArray[np.float64]]:
        """Return the best rotation (n, 3, 3), offset (n, 3) and score (n,) of every particle."""
        stack, config = self.stack, self.config
        shells = FourierShells(self.size, len(weight) - 1, self.device)
        step = max(config.finest_step_degrees, config.angular_step_degrees * 0.8**iteration)
        grid = rotation_grid(step, config.cone_degrees, self.fold, self.device)
        noise = self.noise[: shells.radius + 1]
        whitened = weight / noise
        whitened[0] = 0
        max_shift = config.max_shift_nm * 10 / stack.voxel_size_angstrom
        fine_shifts = ShiftSearch(shells, max_shift)
        rotation, offset = stack.rotation.clone(), stack.offset.clone()
        score = np.zeros(len(stack))

        def search(reference: RotatedReference, coarse_shifts: ShiftSearch, index: int) -> Pose:
            values, wedge = self._particle(index, stack.rotation[index], stack.offset[index], shells)
            values = values / noise[shells.shell]
            return find_pose(reference, values, wedge, coarse_shifts, fine_shifts, config.refinements)

        for number, group in np.ndindex(2, N_GROUPS):
            members = np.flatnonzero((self.half_set == number) & (self.group == group)).tolist()
            if not members:
                continue
            volume = references[number, group] * self.mask
            reference = RotatedReference(volume, whitened, shells, grid, min(COARSE_RADIUS, shells.radius))
            coarse_shifts = ShiftSearch(reference.coarse, max_shift)
            find = partial(search, reference, coarse_shifts)
            for index, pose in zip(members, self._map(find, members), strict=True):
                prior = stack.rotation[index]
                rotation[index] = prior @ pose.rotation
                offset[index] = stack.offset[index] + prior @ pose.shift_zyx
                score[index] = pose.score
                advance(1)
        return rotation, offset, score

    def _particle(
        self, index: int, rotation: Tensor, offset: Tensor, shells: FourierShells
    ) -> tuple[Tensor, Tensor]:
        """Return the (K,) transform of a particle in the frame of a pose, and its missing-wedge weights."""
        k = shells.frequency @ rotation.T
        values = FourierInterpolator(self.stack.box(index)[None], shells.radius).sample(k[None])[0]
        wedge = missing_wedge_weights(k, self.config.tilt_range_degrees)
        return values * phase_ramp(k, offset, self.size), wedge

    def _average(
        self, rotation: Tensor, offset: Tensor, kept: npt.NDArray[np.bool_], advance: Advance
    ) -> tuple[Tensor, Tensor]:
        """Return the (2, n, n, n) half maps, and (2, groups, n, n, n) half maps without one of the groups."""
        shape = (N_GROUPS, len(self.shells.frequency))
        halves, references = [], []

        def weighted(index: int) -> tuple[Tensor, Tensor]:
            values, wedge = self._particle(index, rotation[index], offset[index], self.shells)
            return values * wedge, wedge

        for number in (0, 1):
            total = torch.zeros(shape, dtype=torch.complex64, device=self.device)
            measured = torch.zeros(shape, device=self.device)
            in_half = self.half_set == number
            advance(int((in_half & ~kept).sum()))
            members = np.flatnonzero(in_half & kept).tolist()
            for index, (values, wedge) in zip(members, self._map(weighted, members), strict=True):
                total[self.group[index]] += values
                measured[self.group[index]] += wedge
                advance(1)
            all_total, all_measured = total.sum(0), measured.sum(0)
            halves.append(self._reconstruct(all_total, all_measured))
            without = zip(all_total - total, all_measured - measured, strict=True)
            references.append(torch.stack([self._reconstruct(*sums) for sums in without]))
        return torch.stack(halves), torch.stack(references)

    def _reconstruct(self, total: Tensor, measured: Tensor) -> Tensor:
        """Divide the sum of transforms by that of their weights, and impose the symmetry."""
        volume = self.shells.volume(total / (measured + WEIGHT_REGULARISATION))
        if self.fold == 1:
            return volume
        rotations = Rotation.from_euler("Z", np.arange(self.fold)[:, None] * 360 / self.fold, degrees=True)
        symmetric = torch.zeros_like(volume)
        for rotation in zyx_matrices(rotations, self.device):
            symmetric += rotate_and_shift(volume, rotation, torch.zeros(3, device=self.device))
        return symmetric / self.fold

    def _map(self, work: Callable[[int], Result], indices: Sequence[int]) -> Iterator[Result]:
        """Yield results for particles in order, each from one thread, so that threads change no bit."""
        if self.device.type != "cpu":
            yield from map(work, indices)
            return

        def without_gradients(index: int) -> Result:
            # Inference mode is a property of the thread.
            with torch.inference_mode():
                return work(index)

        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # In batches, because finished results wait in memory.
            for first in range(0, len(indices), 4 * self.threads):
                yield from pool.map(without_gradients, indices[first : first + 4 * self.threads])

    def _align_half_maps(
        self, halves: Tensor, references: Tensor, rotation: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Align the second half map, its references and the poses of its particles to the first half map.

        The half sets exchange only this pose, found at the initial resolution, where none is claimed.
        """
        shells = FourierShells(self.size, self.initial_radius, self.device)
        weight = 1 / self.noise[: shells.radius + 1]
        weight[0] = 0
        grid = rotation_grid(HALF_MAP_STEP_DEGREES, HALF_MAP_CONE_DEGREES, self.fold, self.device)
        second = RotatedReference(halves[1] * self.mask, weight, shells, grid, shells.radius)
        first = shells.transform(halves[0] * self.mask) * weight[shells.shell]
        no_wedge = torch.ones(len(first), device=self.device)
        shifts = ShiftSearch(shells, HALF_MAP_SHIFT_VOXELS)
        pose = find_pose(second, first, no_wedge, shifts, shifts, HALF_MAP_REFINEMENTS)
        volumes = halves[1], *references[1]
        moved = [rotate_and_shift(volume, pose.rotation, pose.shift_zyx) for volume in volumes]
        rotation, offset = rotation.clone(), offset.clone()
        in_second = torch.from_numpy(self.half_set == 1).to(self.device)
        rotation[in_second] = rotation[in_second] @ pose.rotation.T
        offset[in_second] -= rotation[in_second] @ pose.shift_zyx
        halves = torch.stack([halves[0], moved[0]])
        return halves, torch.stack([references[0], torch.stack(moved[1:])]), rotation, offset


def split_particles(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Assign particles at random to half sets (n,) 0 or 1, and to groups (n,) of nearly equal size."""
    order = np.random.default_rng(seed).permutation(count)
    return order % 2, order // 2 % N_GROUPS
