"""Simulated tomograms to learn from and to measure on, kept in files; every seed has one use only."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.candidates import Candidates
from t3ssfast.io import atomic_path
from t3ssfast.simulation.simulate import Physics, random_physics, simulate
from t3ssfast.tomogram import Tomogram

__all__ = [
    "CALIBRATION",
    "CALIBRATION_WHOLE",
    "HELD_OUT",
    "HELD_OUT_WHOLE",
    "MODEL_VOXEL_SIZE",
    "ORDINARY",
    "TRAINING",
    "TRAINING_WHOLE",
    "VERIFYING_WHOLE",
    "Example",
    "Use",
    "simulate_examples",
]

# Two in three tomograms are made on the models' own grid, the others between these voxel sizes.
OWN_VOXEL_SIZE_SHARE = 2 / 3
VOXEL_SIZE_RANGE = (10.0, 15.0)
MODEL_VOXEL_SIZE = 13.6
# How much wider than those of the training the ranges are that calibration and measurement draw from: what a
# score is worth, and how good the models are, must not be told by tomograms just like those learned from.
BEYOND_TRAINING = 0.25
# Ranges of whole cells, instead of those of `random_physics`.
WHOLE_CELLS = {"cell_radius_nm": (80.0, 180.0), "cell_flattening": (0.5, 1.0)}
# Kinds of particles that are shown to the classifier wherever they are; of the many others, those that it
# falls for are found by mining.
LOOK_ALIKES = ("flagellar_motor", "secretin", "chemoreceptor_array", "gold_bead")


@dataclass(frozen=True)
class Use:
    """What simulated tomograms are for, and how they are drawn.

    Parameters
    ----------
    offset
        Of their seeds, in the million that each run of a recipe has for itself.
    widen
        Of `random_physics`; None for the physics that `simulate` has by itself.
    whole_cells
        Cells small enough for a deep volume to hold their tops and bottoms; else most volumes are slabs cut
        out of larger ones, and hardly a T3SS in them faces the beam.
    """

    offset: int
    widen: float | None = 0.0
    whole_cells: bool = False

    def seed(self, run: int, index: int) -> int:
        """Simulation seed of one of a run's tomograms."""
        return 1_000_000 * (run + 1) + self.offset + index


TRAINING = Use(0)
TRAINING_WHOLE = Use(200_000, whole_cells=True)
VERIFYING_WHOLE = Use(300_000, whole_cells=True)
CALIBRATION = Use(600_000, BEYOND_TRAINING)
CALIBRATION_WHOLE = Use(700_000, BEYOND_TRAINING, whole_cells=True)
ORDINARY = Use(800_000, None)
HELD_OUT = Use(500_000, BEYOND_TRAINING)
HELD_OUT_WHOLE = Use(400_000, BEYOND_TRAINING, whole_cells=True)


@dataclass(frozen=True)
class Example:
    """A simulated tomogram and what is known of it.

    Attributes
    ----------
    tomogram, membrane
        The volume, and its true (z, y, x) mask.
    picks
        What the classifier is taught: the T3SS, and the look-alikes.
    truth, distractors
        The T3SS; every other particle.
    physics
        What was simulated.
    whole_cells
        Of its `Use`.
    """

    tomogram: Tomogram
    membrane: npt.NDArray[np.uint8]
    picks: Candidates
    truth: Candidates
    distractors: Candidates
    physics: Physics
    whole_cells: bool = False


def _drawn(use: Use, seed: int) -> tuple[float, Physics]:
    """Voxel size (A) and physics of a seed's tomogram: random, or those that `simulate` has by itself."""
    if use.widen is None:
        return MODEL_VOXEL_SIZE, Physics()
    rng = np.random.default_rng([seed, 9])
    own = rng.random() < OWN_VOXEL_SIZE_SHARE
    voxel_size = MODEL_VOXEL_SIZE if own else round(float(rng.uniform(*VOXEL_SIZE_RANGE)), 2)
    fixed = {}
    if use.whole_cells:
        for name, (low, high) in WHOLE_CELLS.items():
            more = use.widen / 2 * (high - low)
            fixed[name] = float(rng.uniform(low - more, high + more))
    return voxel_size, random_physics(rng, widen=use.widen, **fixed)


def _simulate_to(path: Path, use: Use, seed: int, shape: tuple[int, int, int]) -> Path:
    """Simulate one example into a file, unless it is there."""
    if path.is_file():
        return path
    voxel_size, physics = _drawn(use, seed)
    made = simulate(seed, shape, voxel_size, **physics.to_dict())
    centre = np.concatenate([made.truth.centre_zyx, made.distractors.centre_zyx])
    normal = np.concatenate([made.truth.normal_zyx, made.distractors.normal_zyx])
    kind = np.concatenate([made.truth.kind, made.distractors.kind])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            # Half the size; its rounding is far below the noise of values of unit variance.
            tomogram=made.tomogram.data.astype(np.float16),
            membrane=made.membrane,
            voxel_size_angstrom=voxel_size,
            centre_zyx=centre,
            normal_zyx=normal,
            kind=kind,
        )
    return path


def _load(path: Path, use: Use, seed: int) -> Example:
    with np.load(path) as stored:
        tomogram = Tomogram(stored["tomogram"], float(stored["voxel_size_angstrom"]), path.stem)
        everything = Candidates(
            stored["centre_zyx"],
            np.ones(len(stored["kind"]), np.float32),
            stored["normal_zyx"],
            tomogram.voxel_size_angstrom,
            tomogram.shape,
            tomogram.name,
            stored["kind"],
        )
        target = everything.kind == "t3ss"
        return Example(
            tomogram,
            stored["membrane"],
            picks=everything[target | np.isin(everything.kind, LOOK_ALIKES)],
            truth=everything[target],
            distractors=everything[~target],
            physics=_drawn(use, seed)[1],
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
    report: Callable[[str], None] = lambda line: None,
) -> list[Example]:
    """Simulate examples, or read those that are in the folder already.

    Parameters
    ----------
    folder
        Where they are kept, one ``.npz`` each, named by shape and seed.
    use, run, count
        What for, for which run of the recipe, and how many.
    shape
        (z, y, x) voxels.
    jobs
        Processes that simulate at the same time.
    report
        Called with a line after each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = "x".join(map(str, shape))
    seeds = [use.seed(run, k) for k in range(count)]
    paths = [folder / f"{size}_seed{seed}.npz" for seed in seeds]
    missing = [(p, s) for p, s in zip(paths, seeds, strict=True) if not p.is_file()]
    if missing and jobs > 1:
        # Spawned, because a forked copy of a process that has used OpenMP hangs.
        context = multiprocessing.get_context("spawn")
        workers = min(jobs, len(missing))
        threads = max(1, torch.get_num_threads() // workers)
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            made = [pool.submit(_simulate_to, p, use, s, shape) for p, s in missing]
            for done, future in enumerate(made, 1):
                report(f"simulated {done} of {len(made)}: {future.result().name}")
    else:
        for done, (path, seed) in enumerate(missing, 1):
            report(f"simulated {done} of {len(missing)}: {_simulate_to(path, use, seed, shape).name}")
    return [_load(path, use, seed) for path, seed in zip(paths, seeds, strict=True)]
