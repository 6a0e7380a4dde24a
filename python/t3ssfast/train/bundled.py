"""The recipe of the two bundled models: simulate, train, measure, and pin.

`train_bundled` is the whole of it. The tomograms are drawn from `simulate.random_physics`; their seeds are
those of `training_seed` and `held_out_seed` and are used for nothing else in this package.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.errors import ConfigError
from t3ssfast.io import atomic_path, file_sha256
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.normalise import PreparedTomogram
from t3ssfast.segment import segment
from t3ssfast.simulate import random_physics, simulate
from t3ssfast.train.classifier import train_classifier
from t3ssfast.train.segmenter import overlap_figures, train_segmenter
from t3ssfast.types import Candidates, Tomogram

__all__ = [
    "SIZES",
    "BundledSize",
    "Example",
    "held_out_seed",
    "simulate_examples",
    "train_bundled",
    "training_seed",
]


@dataclass(frozen=True)
class BundledSize:
    """How much of everything the recipe takes.

    Parameters
    ----------
    tomograms, held_out
        Numbers of simulated ones to train on and to measure on.
    shape
        (z, y, x) voxels of each.
    segmenter, classifier
        Options of the two trainings.
    """

    tomograms: int
    held_out: int
    shape: tuple[int, int, int]
    segmenter: dict[str, Any]
    classifier: dict[str, Any]


SIZES = {
    # An hour on two cores.
    "full": BundledSize(
        tomograms=60,
        held_out=8,
        shape=(88, 384, 384),
        segmenter={"steps": 1_500, "steps_per_epoch": 100, "batch": 8, "patch_px": 192},
        classifier={
            "steps": 1_500,
            "steps_per_epoch": 150,
            "rounds": 2,
            "negatives_per_tomogram": 700,
            "mined_per_tomogram": 200,
            "mined_slices": 8,
        },
    ),
    # A few minutes: shows that the recipe runs, not how well it can do.
    "small": BundledSize(
        tomograms=6,
        held_out=1,
        shape=(48, 224, 224),
        segmenter={"steps": 40, "steps_per_epoch": 20, "batch": 4, "patch_px": 128, "validation_patches": 8},
        classifier={"steps": 60, "steps_per_epoch": 30, "rounds": 1, "mined_slices": 4},
    ),
}
# Two in three tomograms are made on the models' own grid, the others between these voxel sizes.
OWN_VOXEL_SIZE_SHARE = 2 / 3
VOXEL_SIZE_RANGE = (10.0, 15.0)
MODEL_VOXEL_SIZE = 13.6
# Kinds of particles that are shown to the classifier wherever they are; of the many others, those that it
# falls for are found by mining.
LOOK_ALIKES = ("flagellar_motor", "secretin", "chemoreceptor_array", "gold_bead")


def training_seed(seed: int, index: int) -> int:
    """Simulation seed of a training tomogram."""
    return 1_000_000 * (seed + 1) + index


def held_out_seed(seed: int, index: int) -> int:
    """Simulation seed of a tomogram that the models are measured on."""
    return 1_000_000 * (seed + 1) + 500_000 + index


@dataclass(frozen=True)
class Example:
    """A simulated tomogram with its membrane, its T3SS, and the other particles in it."""

    tomogram: Tomogram
    membrane: npt.NDArray[np.uint8]
    picks: Candidates


def _simulate_to(path: Path, seed: int, shape: tuple[int, int, int]) -> Path:
    """Simulate one example into a file, unless it is there."""
    if path.is_file():
        return path
    rng = np.random.default_rng([seed, 9])
    own = rng.random() < OWN_VOXEL_SIZE_SHARE
    voxel_size = MODEL_VOXEL_SIZE if own else round(float(rng.uniform(*VOXEL_SIZE_RANGE)), 2)
    made = simulate(seed, shape, voxel_size, **random_physics(rng).to_dict())
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


def _load(path: Path) -> Example:
    with np.load(path) as stored:
        tomogram = Tomogram(stored["tomogram"], float(stored["voxel_size_angstrom"]), path.stem)
        kind = stored["kind"]
        chosen = np.isin(kind, ["t3ss", *LOOK_ALIKES])
        picks = Candidates(
            stored["centre_zyx"][chosen],
            np.ones(int(chosen.sum()), np.float32),
            stored["normal_zyx"][chosen],
            tomogram.voxel_size_angstrom,
            tomogram.shape,
            tomogram.name,
            kind[chosen],
        )
        return Example(tomogram, stored["membrane"], picks)


def simulate_examples(
    folder: Path,
    seeds: Sequence[int],
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
    seeds
        One for each example.
    shape
        (z, y, x) voxels.
    jobs
        Processes that simulate at the same time.
    report
        Called with a line after each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = "x".join(map(str, shape))
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
            made = [pool.submit(_simulate_to, p, s, shape) for p, s in missing]
            for done, future in enumerate(made, 1):
                report(f"simulated {done} of {len(made)}: {future.result().name}")
    else:
        for done, (path, seed) in enumerate(missing, 1):
            report(f"simulated {done} of {len(missing)}: {_simulate_to(path, seed, shape).name}")
    return [_load(path) for path in paths]


def _membrane_figures(examples: Sequence[Example], model: LoadedModel) -> dict[str, float]:
    """Dice, precision and recall of the voxels above 0.5, pooled over whole tomograms."""
    hits = found = true = 0
    for example in examples:
        prepared = PreparedTomogram.prepare(
            example.tomogram,
            voxel_size_angstrom=model.metadata.voxel_size_angstrom,
            normalisation=model.metadata.normalisation,
        )
        for z in range(prepared.shape[0]):
            seen = segment(prepared.slab(z, z + 1), model) > 0.5
            there = prepared.mask_from_tomogram(example.membrane, z, z + 1) != 0
            hits += int((seen & there).sum())
            found += int(seen.sum())
            true += int(there.sum())
    return overlap_figures(hits, found, true)


def train_bundled(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    size: str = "full",
    tomograms: int | None = None,
    jobs: int = 1,
    device: str = "cpu",
    resume: bool = True,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Make the two bundled models from nothing.

    Parameters
    ----------
    out
        Folder for segmenter.pt, classifier.pt, checksums.json, figures.json and the training curves; the
        simulated tomograms are kept in its folder "simulated" and used again.
    seed
        Of the simulation and the trainings.
    size
        A key of `SIZES`.
    tomograms
        To train on, instead of the size's number.
    jobs
        Simulations at a time.
    device
        Where to train.
    resume
        Go on from what an interrupted run has left in the folder: its tomograms, checkpoints, and a finished
        segmenter.
    progress
        Show bars on a terminal.
    report
        Called with a line at every stage.

    Returns
    -------
    What figures.json holds: figures on held-out simulated tomograms, and both recipes.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no recipe of the size {size!r}; choose from {', '.join(SIZES)}.")
    recipe = SIZES[size] if tomograms is None else replace(SIZES[size], tomograms=tomograms)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [training_seed(seed, k) for k in range(recipe.tomograms)]
    seeds += [held_out_seed(seed, k) for k in range(recipe.held_out)]
    made = simulate_examples(folder / "simulated", seeds, recipe.shape, jobs=jobs, report=report)
    examples, held_out = made[: recipe.tomograms], made[recipe.tomograms :]
    volumes = [e.tomogram for e in examples]
    membranes = [e.membrane for e in examples]
    common: dict[str, Any] = {"seed": seed, "device": device, "resume": resume, "progress": progress}

    segmenter, classifier = folder / "segmenter.pt", folder / "classifier.pt"
    if not (resume and segmenter.is_file()):
        report(f"training the segmenter on {len(volumes)} tomograms")
        train_segmenter(volumes, membranes, segmenter, **common, **recipe.segmenter)
    report("training the classifier")
    train_classifier(
        volumes, [e.picks for e in examples], membranes, classifier, **common, **recipe.classifier
    )

    loaded = load_model(segmenter, kind="segmenter")
    judged = load_model(classifier, kind="classifier")
    report(f"measuring the membrane on {len(held_out)} held-out tomograms")
    figures = {
        "membrane_on_held_out_simulation": _membrane_figures(held_out, loaded),
        "segmenter_validation": loaded.metadata.figures,
        "classifier_validation": judged.metadata.figures,
        "seed": seed,
        "size": size,
        "tomograms": recipe.tomograms,
        "shape": recipe.shape,
    }
    for name, document in (
        ("figures.json", figures),
        ("checksums.json", {p.name: file_sha256(p) for p in (segmenter, classifier)}),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return figures
