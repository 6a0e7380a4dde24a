"""One iteration: align each half to its own references, average each half, bring the two into one frame.

A particle that is part of its reference finds its own noise there again: it stays where it is, and whatever
it shows scores well. So each half has several references, each of which leaves a group of particles out, and
a group is compared with the reference that it is no part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.extract import wedge_weight
from t3ssfast.averaging.fourier import Shells, Spectrum, phase_ramp, turned
from t3ssfast.averaging.reject_outliers import kept_by_score
from t3ssfast.averaging.resolution import SIGNAL, compare_halves
from t3ssfast.averaging.search import Match, Reference, ShiftSearch, find_pose, local_rotations
from t3ssfast.averaging.stack import ParticleStack, zyx_matrices
from t3ssfast.averaging.state import State
from t3ssfast.errors import InputError

__all__ = ["Refinement"]

Tensor = torch.Tensor
Advance = Callable[[int], None]
Result = TypeVar("Result")

# The global search compares no finer than this: 12 cycles a box tell rotations 5 degrees apart at its rim.
COARSE_RADIUS = 12
# Groups of a half that are left out of a reference in turn; each costs a fifth of the half's signal.
GROUPS = 5
# Half the weight of one fully measured particle: damps what next to no particle has measured.
DAMPING = 0.5
REGISTER_STEP_DEGREES = 5.0
REGISTER_CONE_DEGREES = 5.0
REGISTER_SHIFT_VOXELS = 3.0


class Refinement:
    """The work on one stack of particles.

    Parameters
    ----------
    stack
        The particles.
    mask
        (n, n, n) soft mask of the structure, in its own frame.
    fold
        Of the rotational symmetry about the axis.
    config
        Every option.
    reference
        (n, n, n) map to begin with; it is low-passed for both halves. None: each half begins with its own
        average at the poses the particles came with.
    threads
        Particles that are worked on at a time, on a CPU.
    """

    def __init__(
        self,
        stack: ParticleStack,
        mask: Tensor,
        fold: int,
        config: AverageConfig,
        reference: Tensor | None,
        threads: int,
    ) -> None:
        self.threads = threads
        self.stack, self.mask, self.fold, self.config = stack, mask, fold, config
        self.reference = reference
        self.size, self.device = stack.size, stack.device
        self.all = Shells(self.size, self.size // 2 - 1, self.device)
        wanted = self.size * stack.voxel_size_angstrom / config.initial_resolution_angstrom
        self.first_radius = min(max(round(wanted), 3), self.all.radius)
        self.half, self.group = split(len(stack), config.seed)
        self.noise = torch.ones(self.all.radius + 1, device=self.device)

    @property
    def shared_angstrom(self) -> float:
        """What is coarser than this, the halves have in common."""
        return self.size * self.stack.voxel_size_angstrom / self.first_radius

    def measure_noise(self, advance: Advance) -> None:
        """Mean amplitude of the particles in each shell, which is next to all noise; reads every box."""
        power = torch.zeros(self.all.radius + 1, dtype=torch.float64, device=self.device)
        for index in range(len(self.stack)):
            self.stack.add_to_checksum(index)
            values = self.all.transform(self.stack.box(index)).abs().square()
            power += self.all.shell_mean(values).double()
            advance(1)
        amplitude = (power / len(self.stack)).sqrt()
        if not float(amplitude[1:].max()) > 0:
            raise InputError("The boxes of all candidates are empty; check the tomograms and the positions.")
        # The mean of a box was taken out: nothing is known at the origin.
        amplitude[0] = amplitude[1]
        floor = 1e-6 * float(amplitude.max())
        self.noise = amplitude.clamp_min(floor).float()

    def begin(self) -> State:
        """Before the first iteration: the poses that the particles came with, and no averages yet."""
        count = len(self.stack)
        return State(
            iteration=0,
            rotation=self.stack.rotation.cpu().numpy(),
            offset=self.stack.offset.cpu().numpy(),
            score=np.full(count, np.nan),
            kept=np.ones(count, dtype=bool),
            halves=np.zeros((2, *[self.size] * 3), np.float32),
            references=np.zeros((2, GROUPS, *[self.size] * 3), np.float32),
        )

    def iterate(self, state: State, advance: Advance) -> State:
        """Align and average once; `advance` is called with 1 for each particle, twice (at first thrice)."""
        done = state.iteration
        if done == 0:
            references, weight = self._first_references(state, advance), self._first_weight()
        else:
            halves = torch.from_numpy(state.halves).to(self.device)
            references = torch.from_numpy(state.references).to(self.device)
            weight = self._weight((halves[0], halves[1]))
        rotation, offset, score = self._align(references, weight, done, advance)
        kept = np.ones(len(self.stack), dtype=bool)
        if self.config.weed and done >= min(2, self.config.iterations - 1):
            kept = kept_by_score(score)
            for number in (0, 1):
                # A half without particles is no half.
                if not kept[self.half == number].any():
                    kept[self.half == number] = True
        halves, references = self.averages(rotation, offset, kept, advance)
        halves, references, rotation, offset = self._register(halves, references, rotation, offset)
        return State(
            iteration=done + 1,
            rotation=rotation.cpu().numpy(),
            offset=offset.cpu().numpy(),
            score=score,
            kept=kept,
            halves=halves.cpu().numpy(),
            references=references.cpu().numpy(),
        )

    def _first_references(self, state: State, advance: Advance) -> Tensor:
        if self.reference is not None:
            return self.reference.expand(2, GROUPS, *self.reference.shape)
        rotation, offset = (torch.from_numpy(a).to(self.device) for a in (state.rotation, state.offset))
        return self.averages(rotation, offset, state.kept, advance)[1]

    # ---------------------------------------------------------------------------------------------- aligning

    def _first_weight(self) -> Tensor:
        """(s,) of each shell: a soft low-pass."""
        shell = torch.arange(self.first_radius + 3, device=self.device)
        return torch.sigmoid(2.0 * (self.first_radius - shell))[: self.all.radius + 1]

    def _weight(self, halves: tuple[Tensor, Tensor]) -> Tensor:
        """(s,) of each shell, as far as the halves agree: what of a map is signal (Rosenthal & Henderson)."""
        agreement = compare_halves(halves, self.mask, self.stack.voxel_size_angstrom, fold=self.fold)
        correlation = torch.from_numpy(agreement.correlation).to(self.device)
        below = torch.nonzero(correlation < SIGNAL)
        reach = int(below[0]) if len(below) else self.all.radius
        finest = int(self.size / self.config.finest_alignment_voxels)
        radius = min(max(reach, self.first_radius), max(finest, self.first_radius), self.all.radius)
        part = correlation[: radius + 1].clamp(0.0, 1.0)
        part[: self.first_radius + 1] = part[: self.first_radius + 1].clamp_min(SIGNAL)
        return (2 * part / (1 + part)).sqrt().float()

    def _align(
        self, references: Tensor, weight: Tensor, done: int, advance: Advance
    ) -> tuple[Tensor, Tensor, npt.NDArray[np.float64]]:
        """Best rotation (n, 3, 3), offset (n, 3) and score (n,) of every particle."""
        stack, config = self.stack, self.config
        shells = Shells(self.size, len(weight) - 1, self.device)
        step = config.step_degrees(done)
        searched = local_rotations(step, config.cone_degrees, self.fold, self.device)
        noise = self.noise[: shells.radius + 1]
        whitened = weight / noise
        whitened[0] = 0
        reach = config.max_shift_nm * 10 / stack.voxel_size_angstrom
        fine = ShiftSearch(shells, reach)
        rotation, offset = stack.rotation.clone(), stack.offset.clone()
        score = np.zeros(len(stack))
        for number, group in np.ndindex(2, GROUPS):
            members = np.flatnonzero((self.half == number) & (self.group == group))
            if not len(members):
                continue
            volume = references[number, group] * self.mask
            reference = Reference(volume, whitened, shells, searched, min(COARSE_RADIUS, shells.radius))
            coarse = ShiftSearch(reference.coarse, reach)
            match = partial(self._match, reference, noise, (coarse, fine), step)
            for index, found in zip(members.tolist(), self._each(match, members.tolist()), strict=True):
                prior = stack.rotation[index]
                rotation[index] = prior @ found.rotation
                offset[index] = stack.offset[index] + prior @ found.shift_zyx
                score[index] = found.score
                advance(1)
        return rotation, offset, score

    def _match(
        self,
        reference: Reference,
        noise: Tensor,
        shifts: tuple[ShiftSearch, ShiftSearch],
        step: float,
        index: int,
    ) -> Match:
        """How one particle fits a reference."""
        stack, shells = self.stack, reference.shells
        k = shells.frequency @ stack.rotation[index].T
        values = Spectrum(stack.box(index)[None], shells.radius).at(k[None])[0]
        values = values * phase_ramp(k, stack.offset[index], self.size) / noise[shells.shell]
        wedge = wedge_weight(k, self.config.tilt_range_degrees)
        return find_pose(reference, values, wedge, *shifts, self.config.refinements, step)

    # --------------------------------------------------------------------------------------------- averaging

    def averages(
        self, rotation: Tensor, offset: Tensor, kept: npt.NDArray[np.bool_], advance: Advance
    ) -> tuple[Tensor, Tensor]:
        """Averages of the particles that are kept, each half in the frame of its own references.

        Returns
        -------
        (2, n, n, n) half maps, and (2, GROUPS, n, n, n) what of each half is left without one group.
        """
        count = len(self.all.frequency)
        halves, references = [], []

        def turned_back(index: int) -> tuple[Tensor, Tensor]:
            k = self.all.frequency @ rotation[index].T
            wedge = wedge_weight(k, self.config.tilt_range_degrees)
            values = Spectrum(self.stack.box(index)[None], self.all.radius).at(k[None])[0]
            return values * phase_ramp(k, offset[index], self.size) * wedge, wedge

        for number in (0, 1):
            total = torch.zeros(GROUPS, count, dtype=torch.complex64, device=self.device)
            measured = torch.zeros(GROUPS, count, device=self.device)
            mine = self.half == number
            advance(int((mine & ~kept).sum()))
            members = np.flatnonzero(mine & kept).tolist()
            for index, (values, wedge) in zip(members, self._each(turned_back, members), strict=True):
                total[self.group[index]] += values
                measured[self.group[index]] += wedge
                advance(1)
            whole, seen = total.sum(0), measured.sum(0)
            halves.append(self._averaged(whole, seen))
            without = [self._averaged(whole - t, seen - m) for t, m in zip(total, measured, strict=True)]
            references.append(torch.stack(without))
        return torch.stack(halves), torch.stack(references)

    def _each(self, work: Callable[[int], Result], indices: Sequence[int]) -> Iterator[Result]:
        """Results for particles, in their order, each by one thread: the number of threads changes no bit."""
        if self.device.type != "cpu":
            yield from map(work, indices)
            return

        def alone(index: int) -> Result:
            with torch.inference_mode():
                return work(index)

        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # A bounded number at a time: results wait in memory until they are taken.
            for first in range(0, len(indices), 4 * self.threads):
                yield from pool.map(alone, indices[first : first + 4 * self.threads])

    def _averaged(self, total: Tensor, measured: Tensor) -> Tensor:
        return self._symmetric(self.all.volume(total / (measured + DAMPING)))

    def _symmetric(self, volume: Tensor) -> Tensor:
        if self.fold == 1:
            return volume
        turns = Rotation.from_euler("Z", np.arange(self.fold)[:, None] * 360 / self.fold, degrees=True)
        still = torch.zeros(3, device=self.device)
        total = torch.zeros_like(volume)
        for turn in zyx_matrices(turns, self.device):
            total += turned(volume, turn, still)
        return total / self.fold

    def _register(
        self, halves: Tensor, references: Tensor, rotation: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The second half in the frame of the first: its map, its references, the poses of its particles.

        Each half chooses its own turn about the axis. A rotation and a shift are all that passes between
        them, found at no finer than the initial resolution, below which nothing is claimed.
        """
        shells = Shells(self.size, self.first_radius, self.device)
        weight = 1 / self.noise[: shells.radius + 1]
        weight[0] = 0
        searched = local_rotations(REGISTER_STEP_DEGREES, REGISTER_CONE_DEGREES, self.fold, self.device)
        second = Reference(halves[1] * self.mask, weight, shells, searched, shells.radius)
        first = shells.transform(halves[0] * self.mask) * weight[shells.shell]
        everywhere = torch.ones(len(first), device=self.device)
        shifts = ShiftSearch(shells, REGISTER_SHIFT_VOXELS)
        match = find_pose(second, first, everywhere, shifts, shifts, 4, REGISTER_STEP_DEGREES)
        move = match.rotation, match.shift_zyx
        halves = torch.stack([halves[0], turned(halves[1], *move)])
        moved = torch.stack([turned(volume, *move) for volume in references[1]])
        rotation, offset = rotation.clone(), offset.clone()
        theirs = torch.from_numpy(self.half == 1).to(self.device)
        rotation[theirs] = rotation[theirs] @ match.rotation.T
        offset[theirs] -= rotation[theirs] @ match.shift_zyx
        return halves, torch.stack([references[0], moved]), rotation, offset


def split(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n,) half, 0 or 1, and (n,) group within the half, at random and as equal in size as can be."""
    place = np.random.default_rng(seed).permutation(count)
    return place % 2, place // 2 % GROUPS
