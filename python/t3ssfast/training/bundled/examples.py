"""Simulated tomograms to train and measure the bundled models on; every seed has a single use."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.candidates import Candidates
from t3ssfast.io import atomic_path
from t3ssfast.models import code_version
from t3ssfast.runtime.checkpoint import key_of
from t3ssfast.simulation.parameters import Physics, other_microscopes, random_physics
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram

__all__ = ["MODEL_VOXEL_SIZE", "Example", "Use", "simulate_examples"]

# Fraction of the tomograms simulated at the models' voxel size; the others have random ones, in Angstrom.
MODEL_VOXEL_SIZE_FRACTION = 2 / 3
VOXEL_SIZE_RANGE = (10.0, 15.0)
MODEL_VOXEL_SIZE = 13.6
# The parameter ranges of calibration and measurement are wider than those of training by this fraction, so
# that both extrapolate.
WIDENING = 0.25
# Ranges of whole cells, instead of those of `random_physics`.
WHOLE_CELLS = {"cell_radius_nm": (80.0, 180.0), "cell_flattening": (0.5, 1.0)}
# Kinds of particles that are always negatives of the classifier; mining finds the others where needed.
LOOK_ALIKES = ("flagellar_motor", "secretin", "chemoreceptor_array", "gold_bead")


class Use(Enum):
    """Use of simulated tomograms: offset of its seeds in a run's million, and how parameters are drawn.

    `widen` is that of `random_physics`; None takes the defaults of `simulate`. `whole_cells` are small enough
    for a deep volume to contain their tops and bottoms; in slabs of larger cells, few T3SS face the beam.
    `motors` is the range of the number of flagellar motors on a cell, instead of that of `random_physics`;
    `other_microscopes` adds the habits that the function of this name draws.
    """

    TRAINING = (0, 0.0, False)
    TRAINING_WHOLE = (200_000, 0.0, True)
    VERIFYING_WHOLE = (300_000, 0.0, True)
    CALIBRATION = (600_000, WIDENING, False)
    CALIBRATION_WHOLE = (700_000, WIDENING, True)
    ORDINARY = (800_000, None, False)
    HELD_OUT = (500_000, WIDENING, False)
    HELD_OUT_WHOLE = (400_000, WIDENING, True)
    VERIFYING_MOTORS = (350_000, 0.0, True, (0, 7))
    CALIBRATION_MOTORS = (750_000, WIDENING, True, (0, 7))
    HELD_OUT_MOTORS = (450_000, WIDENING, True, (3, 7))
    OTHER_MICROSCOPES = (370_000, 0.0, False, (0, 5), True)
    OTHER_MICROSCOPES_WHOLE = (380_000, 0.0, True, (0, 7), True)

    def __init__(
        self,
        offset: int,
        widen: float | None,
        whole_cells: bool,
        motors: tuple[int, int] | None = None,
        other_microscopes: bool = False,
    ) -> None:
        self.offset, self.widen, self.whole_cells = offset, widen, whole_cells
        self.motors, self.other_microscopes = motors, other_microscopes

    def seed(self, run: int, index: int) -> int:
        """Return the seed of a tomogram of a run."""
        return 1_000_000 * (run + 1) + self.offset + index


@dataclass(frozen=True)
class Example:
    """A simulated tomogram and its ground truth."""

    tomogram: Tomogram
    membrane: npt.NDArray[np.uint8]
    picks: Candidates  # examples for the classifier: T3SS and look-alikes
    truth: Candidates  # T3SS
    distractors: Candidates  # all other particles
    physics: Physics
    whole_cells: bool = False


@dataclass(frozen=True)
class _Plan:
    """Everything that determines a simulated tomogram."""

    seed: int
    shape: tuple[int, int, int]
    voxel_size_angstrom: float
    physics: Physics

    @classmethod
    def draw(cls, use: Use, seed: int, shape: tuple[int, int, int]) -> _Plan:
        """Draw the voxel size and the physics for a seed."""
        if use.widen is None:
            return cls(seed, shape, MODEL_VOXEL_SIZE, Physics())
        rng = np.random.default_rng([seed, 9])
        at_model_size = rng.random() < MODEL_VOXEL_SIZE_FRACTION
        voxel_size = MODEL_VOXEL_SIZE if at_model_size else round(float(rng.uniform(*VOXEL_SIZE_RANGE)), 2)
        fixed: dict[str, Any] = {}
        if use.whole_cells:
            for name, (low, high) in WHOLE_CELLS.items():
                margin = use.widen / 2 * (high - low)
                fixed[name] = float(rng.uniform(low - margin, high + margin))
        if use.motors is not None:
            low_count, high_count = use.motors
            fixed["flagellar_motors_per_cell"] = int(rng.integers(low_count, high_count + 1))
        if use.other_microscopes:
            fixed |= other_microscopes(rng)
        return cls(seed, shape, voxel_size, random_physics(rng, widen=use.widen, **fixed))

    @property
    def name(self) -> str:
        """Name of the tomogram."""
        return f"{'x'.join(map(str, self.shape))}_seed{self.seed}"

    def path(self, folder: Path) -> Path:
        """File of the tomogram; its name contains a key of all parameters and of the package's version."""
        parameters = {"voxel_size": self.voxel_size_angstrom, "physics": self.physics.to_dict()}
        return folder / f"{self.name}_{key_of(parameters, {'version': code_version()})[:12]}.npz"

    def simulate(self, folder: Path) -> str:
        """Simulate the tomogram, write its file, and return its name."""
        made = simulate(self.seed, self.shape, self.voxel_size_angstrom, **self.physics.to_dict())
        particles = (made.truth, made.distractors)
        with atomic_path(self.path(folder)) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                # Half the size; the rounding is far below the noise, at values of unit variance.
                tomogram=made.tomogram.data.astype(np.float16),
                membrane=made.membrane,
                centre_zyx=np.concatenate([p.centre_zyx for p in particles]),
                normal_zyx=np.concatenate([p.normal_zyx for p in particles]),
                kind=np.concatenate([p.kind for p in particles]),
            )
        return self.name

    def load(self, folder: Path, use: Use) -> Example:
        """Read the file of the tomogram."""
        with np.load(self.path(folder)) as stored:
            tomogram = Tomogram(stored["tomogram"], self.voxel_size_angstrom, self.name)
            centre, normal, kind = (stored[name] for name in ("centre_zyx", "normal_zyx", "kind"))
            grid = (self.voxel_size_angstrom, tomogram.shape, self.name)
            particles = Candidates(centre, np.ones(len(kind), np.float32), normal, *grid, kind)
            is_target = particles.kind == "t3ss"
            return Example(
                tomogram,
                stored["membrane"],
                picks=particles[is_target | np.isin(particles.kind, LOOK_ALIKES)],
                truth=particles[is_target],
                distractors=particles[~is_target],
                physics=self.physics,
                whole_cells=use.whole_cells,
            )


def simulate_examples(
    folder: Path,
    use: Use,
    run: int,
    count: int,
    shape: tuple[int, int, int],
    *,
    jobs: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> list[Example]:
    """Simulate examples in `jobs` processes, or read those simulated with the same parameters and version.

    `folder` gets one ``.npz`` per example; `run` is the number of the recipe's run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans = [_Plan.draw(use, use.seed(run, k), shape) for k in range(count)]
    missing = [plan for plan in plans if not plan.path(folder).is_file()]
    if missing and jobs > 1:
        # Spawned, because a fork of a process that has used OpenMP deadlocks.
        context = multiprocessing.get_context("spawn")
        workers = min(jobs, len(missing))
        threads = max(1, torch.get_num_threads() // workers)
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            for done, future in enumerate([pool.submit(plan.simulate, folder) for plan in missing], 1):
                log(f"simulated {done} of {len(missing)}: {future.result()}")
    else:
        for done, plan in enumerate(missing, 1):
            log(f"simulated {done} of {len(missing)}: {plan.simulate(folder)}")
    return [plan.load(folder, use) for plan in plans]
