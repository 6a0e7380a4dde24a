"""The verifier tuned on few picks, with scores that are probabilities there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import expit

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.verify import verify
from t3ssfast.errors import InputError
from t3ssfast.evaluation.calibration import fit_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training import VerifierOptions, train_verifier
from t3ssfast.training.calibrate import find_candidates, rewrite_metadata

__all__ = ["FEWEST_PICKS", "FINE_TUNING", "fine_tune_verifier"]

# Few steps at a low rate: the weights are good already, and a handful of particles is soon learned by heart.
FINE_TUNING: dict[str, Any] = {"steps": 60, "steps_per_epoch": 20, "batch": 24, "learning_rate": 1e-4}
# One is left out, one learned from, and one kept for validation.
FEWEST_PICKS = 3
TOLERANCE_ANGSTROM = 120.0

Model = str | os.PathLike[str] | LoadedModel | None
Indices = npt.NDArray[np.int64]


def fine_tune_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    out: str | os.PathLike[str] = "verifier.pt",
    *,
    start: Model = None,
    classifier: Model = None,
    segmenter: Model = None,
    membranes: Sequence[Any] | None = None,
    folds: int = 4,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
    report: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Path:
    """Train a verifier further on few picks, and calibrate it by what it says of picks it was not shown.

    A tuned verifier is surer of everything than before, and most of all of what it was tuned on, so that the
    calibration it comes with is worth nothing. Here it is also tuned so many times without a part of the
    picks and of the false candidates; what those say of the part they have not seen tells what scores are
    worth.

    Parameters
    ----------
    tomograms, picks
        As for `train_verifier`: protein dark, and every T3SS of each tomogram.
    out
        The TorchScript file to write.
    start
        The verifier to go on from; None is the bundled one.
    classifier, segmenter
        What finds candidates; None: the bundled ones.
    membranes
        Masks, where they are known.
    folds
        Parts that picks and false candidates are dealt into, at least two.
    seed
        Of the parts and the trainings.
    device
        Where to detect and train.
    progress
        Show bars on a terminal.
    report
        Called with a line at every stage.
    **options
        Of `VerifierOptions`, beside or instead of `FINE_TUNING`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InputError
        Fewer than three T3SS are picked, or nothing false is found beside them.
    """
    count = sum(int((known.kind == "t3ss").sum()) for known in picks)
    if count < FEWEST_PICKS or folds < 2:
        raise InputError(
            f"There are {count} picked T3SS to be dealt into {folds} parts; give at least {FEWEST_PICKS}"
            " T3SS and two parts."
        )
    begun, judge = load_model(start, model_kind="verifier"), load_model(classifier, model_kind="classifier")
    found = find_candidates(
        judge,
        tomograms,
        segmenter=segmenter,
        membranes=membranes,
        config=DetectConfig(contrast="dark"),
        device=device,
        report=report,
    )
    chosen = {**FINE_TUNING, **options, "seed": seed}
    common: dict[str, Any] = {"start": begun, "device": device, "progress": progress, **chosen}
    parts = min(folds, count)
    dealt = _deal(picks, found, parts, seed)
    scored = [candidates.score.copy() for candidates in found]
    with tempfile.TemporaryDirectory() as folder:
        for part in range(parts):
            report(f"tuning without part {part + 1} of {parts}")
            kept_picks = [p[d != part] for p, (d, _) in zip(picks, dealt, strict=True)]
            kept_found = [c[d != part] for c, (_, d) in zip(found, dealt, strict=True)]
            tuned = load_model(
                train_verifier(tomograms, kept_picks, kept_found, Path(folder) / f"{part}.pt", **common),
                model_kind="verifier",
                device=device,
            )
            for k, (tomogram, candidates) in enumerate(zip(tomograms, found, strict=True)):
                unseen = np.flatnonzero(dealt[k][1] == part)
                if len(unseen):
                    grid = PreparedTomogram.prepare(
                        tomogram,
                        voxel_size_angstrom=tuned.metadata.voxel_size_angstrom,
                        normalisation=tuned.metadata.normalisation,
                    )
                    centre = grid.from_tomogram(candidates.centre_zyx[unseen])
                    axis = candidates.normal_zyx[unseen]
                    # Without what membranes hold against candidates: those that were found are not at hand.
                    *_, log_odds = verify(grid, centre, axis, candidates.score[unseen], tuned)
                    scored[k][unseen] = expit(log_odds)
    report("tuning on everything")
    path = train_verifier(tomograms, picks, found, out, **common)
    told = evaluate(
        [replace(c, score=s).sorted_by_score() for c, s in zip(found, scored, strict=True)],
        [p[p.kind == "t3ss"] for p in picks],
        TOLERANCE_ANGSTROM,
    )
    # So few candidates make a curve of two numbers, no steps.
    learned = fit_calibration(
        told.scores, told.hits, np.arange(len(told.scores)) % parts, told.n_truth, method="platt"
    )
    rewrite_metadata(path, "verifier", calibration=learned.to_dict())
    return path


def _deal(
    picks: Sequence[Candidates],
    found: Sequence[Candidates],
    parts: int,
    seed: int,
) -> list[tuple[Indices, Indices]]:
    """For each tomogram, the part of each pick and of each candidate; those about a T3SS go with it.

    Picks of other kinds are in no part (-1): all trainings see them.
    """
    rng = np.random.default_rng([seed, 14])
    limit_nm = VerifierOptions.negative_distance_nm
    dealt, picked, others = [], 0, 0
    for known, candidates in zip(picks, found, strict=True):
        target = known.kind == "t3ss"
        of_picks = np.full(len(known), -1)
        of_picks[target] = (picked + rng.permutation(int(target.sum()))) % parts
        of_found = (others + rng.permutation(len(candidates))) % parts
        if target.any() and len(candidates):
            centres, places = (
                (np.asarray(c.centre_zyx, np.float64) + 0.5) * (c.voxel_size_angstrom / 10)
                for c in (known[target], candidates)
            )
            distance, nearest = cKDTree(centres).query(places)
            near = distance <= limit_nm
            of_found[near] = of_picks[target][np.asarray(nearest)[near]]
        picked, others = picked + int(target.sum()), others + len(candidates)
        dealt.append((of_picks, of_found))
    return dealt
