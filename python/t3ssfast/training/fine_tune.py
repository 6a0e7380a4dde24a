"""Fine-tuning of the verifier on few picks, with a calibration by cross-validation."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.special import expit

from t3ssfast.candidates import T3SS, Candidates
from t3ssfast.detection.find_contrast import contrast_of_each
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.verify import verify
from t3ssfast.errors import InputError
from t3ssfast.evaluation.calibration import fit_calibration, read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.io import results_folder
from t3ssfast.models import LoadedModel, code_version, load_model
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.tomogram import StrPath, Tomogram
from t3ssfast.training import VerifierOptions, train_verifier
from t3ssfast.training.calibrate import find_candidates, update_metadata

__all__ = [
    "FINE_TUNING",
    "MIN_PICKS",
    "assign_folds",
    "calibrated_rows",
    "examples_of_verdicts",
    "fine_tune_verifier",
    "verified_scores",
]

# Few steps at a low rate: the weights are good already, and a handful of particles is soon overfitted.
FINE_TUNING: dict[str, Any] = {"steps": 60, "steps_per_epoch": 20, "batch": 24, "learning_rate": 1e-4}
# One to leave out, one to train on and one to validate with.
MIN_PICKS = 3
TOLERANCE_ANGSTROM = 120.0

Folds = npt.NDArray[np.int64]


def fine_tune_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    out: StrPath = "verifier.safetensors",
    *,
    start: StrPath | LoadedModel | None = None,
    classifier: StrPath | LoadedModel | None = None,
    segmenter: StrPath | LoadedModel | None = None,
    membranes: Sequence[Any] | None = None,
    found: Sequence[Candidates] | None = None,
    contrast: str | Sequence[str] = "auto",
    folds: int = 4,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = False,
    log: Callable[[str], None] = lambda line: None,
    cross_validated: list[Candidates] | None = None,
    **options: Any,
) -> Path:
    """Fine-tune a verifier on few picks, and calibrate it by cross-validation.

    Fine-tuning makes a verifier overconfident on its training data. The calibration is therefore learned from
    candidates left out: for each fold, the verifier is fine-tuned without it and scores it.

    Parameters
    ----------
    tomograms, picks
        As for `train_verifier`: tomograms, and all T3SS of each. Candidates with labels, of a curation file,
        are verdicts instead, in all tomograms if in one: those accepted are T3SS, those rejected are not, and
        nothing is known of others.
    out
        Model file to write, safetensors or TorchScript; see `t3ssfast.models.save_trained`.
    start
        Verifier to start from; None is the bundled one.
    classifier, segmenter, device
        As for `detect`.
    membranes
        Mask of each tomogram; None segments them.
    found
        Candidates of the classifier in each tomogram, uncalibrated and down to low scores; None searches.
    contrast
        As for `train_segmenter`.
    folds
        Number of folds, at least two.
    seed
        Random seed of the folds and of the training.
    resume
        Resume from the checkpoint of an interrupted run with the same options and data, which lies beside
        `out`: searched tomograms and finished folds are kept, and a training resumes at its last epoch.
    progress, log
        Show progress bars on a terminal; function called with a line of text at every stage.
    cross_validated
        Gets the candidates of each tomogram that were learned from, each with the uncalibrated score of a
        verifier that was fine-tuned without its fold.
    **options
        Fields of `VerifierOptions`, in addition to or instead of `FINE_TUNING`.

    Returns
    -------
    Path of the model file.

    Raises
    ------
    InputError
        If fewer than three T3SS are picked, or there is no false candidate; or of verdicts, fewer than three,
        four with two folds, are accepted or rejected.
    """
    given = picks
    of_verdicts = any((known.label != "").any() for known in picks)
    if of_verdicts:
        _check_verdicts(picks, folds)
        picks = [known[known.label == "accepted"] for known in picks]
    count = sum(int((known.kind == "t3ss").sum()) for known in picks)
    if count < MIN_PICKS or folds < 2:
        raise InputError(
            f"There are {count} picked T3SS for {folds} folds; give at least {MIN_PICKS} T3SS and two folds."
        )
    contrasts = contrast_of_each(tomograms, contrast, membranes, segmenter)
    begun = load_model(start, model_kind="verifier")
    loaded = load_model(classifier, model_kind="classifier")
    if segmenter is not None:
        segmenter = load_model(segmenter, model_kind="segmenter")
    options = {**FINE_TUNING, **options, "seed": seed}
    models = [None if model is None else model.sha256 for model in (begun, loaded, segmenter)]
    key = _key(tomograms, given, membranes, contrasts, {**options, "folds": folds, "models": models})
    store = CheckpointStore(Path(out).parent, key, name=f"{Path(out).name}-tune")
    if not resume:
        store.remove()
    search: dict[str, Any] = {"segmenter": segmenter, "membranes": membranes, "device": device, "log": log}
    if found is None:
        found = find_candidates(loaded, tomograms, contrasts=contrasts, store=store, **search)
    if of_verdicts:
        found = [examples_of_verdicts(some, known) for some, known in zip(found, given, strict=True)]
    common = {"start": begun, "contrast": contrasts, "device": device, "progress": progress, **options}
    folds = min(folds, count)
    assigned = assign_folds(picks, found, folds, seed)
    scores = [candidates.score.copy() for candidates in found]
    assert store.folder is not None, "a store in a folder has one of its own"
    for fold in range(folds):
        left_out = [np.flatnonzero(of_found == fold) for _, of_found in assigned]
        lengths = {str(k): len(index) for k, index in enumerate(left_out) if len(index)}

        def parse(piece: dict[str, Any], lengths: dict[str, int] = lengths) -> dict[str, Any]:
            if {key: len(value) for key, value in piece.items()} != lengths:
                raise ValueError("not the scores of this fold")
            return piece

        kept = store.load(f"fold-{fold}", parse)
        if kept is None:
            log(f"fine-tuning without fold {fold + 1} of {folds}")
            path = results_folder(store.folder) / f"{fold}.safetensors"
            if not path.exists():
                kept_picks = [p[f != fold] for p, (f, _) in zip(picks, assigned, strict=True)]
                kept_found = [c[f != fold] for c, (_, f) in zip(found, assigned, strict=True)]
                train_verifier(tomograms, kept_picks, kept_found, path, resume=True, **common)
            model = load_model(path, model_kind="verifier", device=device)
            kept = {}
            for k, (tomogram, candidates) in enumerate(zip(tomograms, found, strict=True)):
                if len(left_out[k]):
                    sign = 1 if contrasts[k] == "dark" else -1
                    kept[str(k)] = verified_scores(tomogram, candidates, left_out[k], model, sign)
            store.save(f"fold-{fold}", **kept)
        for k, index in enumerate(left_out):
            if len(index):
                scores[k][index] = kept[str(k)]
    if cross_validated is not None:
        cross_validated += [replace(some, score=score) for some, score in zip(found, scores, strict=True)]
    log("fine-tuning on all picks")
    path = train_verifier(tomograms, picks, found, out, resume=resume, **common)
    rescored = [replace(c, score=s).sorted_by_score() for c, s in zip(found, scores, strict=True)]
    evaluation = evaluate(rescored, [p[p.kind == "t3ss"] for p in picks], TOLERANCE_ANGSTROM)
    rows = calibrated_rows(evaluation.scores, evaluation.hits)
    score, hit = evaluation.scores[rows], evaluation.hits[rows]
    # Few candidates determine a logistic curve but no isotonic one, and uncertain ones alone not its slope.
    prior = read_calibration(begun.metadata.calibration)
    fold_of_each, n_truth = np.arange(len(score)) % folds, evaluation.n_truth
    calibration = fit_calibration(score, hit, fold_of_each, n_truth, method="platt", prior=prior)
    others = begun.metadata.kind_calibrations
    update_metadata(path, "verifier", calibration=calibration.to_dict(), kind_calibrations=others)
    store.remove()
    return path


def _check_verdicts(verdicts: Sequence[Candidates], folds: int) -> None:
    """Raise InputError where there are too few verdicts to learn from.

    Without any fold, two of each verdict must be left: one to learn from, and one to validate with.
    """
    labels = [label for known in verdicts for label in known.label.tolist()]
    accepted, rejected = labels.count("accepted"), labels.count("rejected")
    needed = MIN_PICKS
    while needed - math.ceil(needed / max(2, folds)) < 2:
        needed += 1
    if min(accepted, rejected) < needed:
        raise InputError(
            f"{accepted} candidates are accepted and {rejected} rejected; judge more, at least {needed} "
            f"of each for {folds} folds (t3ssfast suggest finds those that teach most)."
        )


def examples_of_verdicts(found: Candidates, verdicts: Candidates) -> Candidates:
    """Return the candidates that verdicts say something about, to learn from.

    Parameters
    ----------
    found
        Candidates of the classifier.
    verdicts
        Candidates with labels, in voxels of any size of the same tomogram.

    Returns
    -------
    The candidates close to one that was accepted or rejected, unless one that is unsure or undecided is
    closer, and those rejected that the classifier did not find.
    """
    judged = replace(verdicts, details={})
    judged = replace(
        judged,
        centre_zyx=judged.centre_zyx * (judged.voxel_size_angstrom / found.voxel_size_angstrom),
        voxel_size_angstrom=found.voxel_size_angstrom,
    )
    reach = TOLERANCE_ANGSTROM / found.voxel_size_angstrom
    distance, nearest = map(np.asarray, cKDTree(judged.centre_zyx).query(found.centre_zyx))
    close = distance <= reach
    known = np.zeros(len(found), bool)
    known[close] = np.isin(judged.label[nearest[close]], ("accepted", "rejected"))
    to_found, _ = map(np.asarray, cKDTree(found.centre_zyx).query(judged.centre_zyx))
    missing = (judged.label == "rejected") & (to_found > reach)
    unlabelled = replace(judged[missing], label=None, kind=None)  # type: ignore[arg-type]
    return replace(found, details={})[known].joined(unlabelled)


def _key(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    membranes: Sequence[Any] | None,
    contrasts: Sequence[str],
    options: dict[str, Any],
) -> str:
    """Return the checkpoint key: the data, and every option that changes the result."""
    described: list[Any] = []
    for tomogram, known, contrast in zip(tomograms, picks, contrasts, strict=True):
        middle = np.ascontiguousarray(tomogram.data[tomogram.shape[0] // 2])
        particles = [known.centre_zyx.tolist(), known.normal_zyx.tolist(), known.kind.tolist()]
        if (known.label != "").any():
            particles.append(known.label.tolist())
        size = tomogram.voxel_size_angstrom
        described.append(
            [tomogram.name, tomogram.shape, size, zlib.crc32(middle.tobytes()), contrast, particles]
        )
    masks = [zlib.crc32(np.ascontiguousarray(mask).tobytes()) for mask in membranes or ()]
    return key_of({"tomograms": described, "masks": masks, "options": options, "version": code_version()})


def calibrated_rows(score: npt.NDArray[Any], true: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the indices of candidates that a calibration can be fitted to.

    A T3SS that the verifier takes for another kind has a score of 0 (`verified_scores`): no threshold reports
    it, and a curve in log-odds that passes it would be flat, so that everything passes.
    """
    return np.flatnonzero((score > 0) | (true == 0))


def verified_scores(
    tomogram: Tomogram,
    candidates: Candidates,
    index: npt.NDArray[np.int64],
    verifier: LoadedModel,
    contrast_sign: int,
) -> npt.NDArray[np.float64]:
    """Return the verifier's scores (n,) of the candidates at `index`, without the membrane's influence."""
    metadata = verifier.metadata
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=metadata.voxel_size_angstrom,
        normalisation=metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    centre = grid.from_tomogram(candidates.centre_zyx[index])
    given = (centre, candidates.normal_zyx[index], candidates.score[index])
    _, _, kind, log_odds = verify(grid, *given, verifier)
    # A detection does not report candidates of another kind as T3SS.
    return np.where(kind == metadata.kinds.index(T3SS), expit(log_odds), 0.0)


def assign_folds(
    picks: Sequence[Candidates], candidates: Sequence[Candidates], folds: int, seed: int
) -> list[tuple[Folds, Folds]]:
    """Assign the T3SS and the candidates of each tomogram to folds of equal size.

    Candidates close to a T3SS are in its fold. Picks of other kinds are in no fold (-1).
    """
    rng = np.random.default_rng([seed, 14])
    assigned, n_picks, n_candidates = [], 0, 0
    for known, found in zip(picks, candidates, strict=True):
        is_target = known.kind == "t3ss"
        count = int(is_target.sum())
        of_picks = np.full(len(known), -1)
        of_picks[is_target] = (n_picks + rng.permutation(count)) % folds
        of_found = np.zeros(len(found), np.int64)
        known_nm, found_nm = (
            (np.asarray(c.centre_zyx, np.float64) + 0.5) * (c.voxel_size_angstrom / 10)
            for c in (known[is_target], found)
        )
        distance, nearest = cKDTree(known_nm).query(found_nm)
        close = np.asarray(distance) <= VerifierOptions.negative_distance_nm
        of_found[close] = of_picks[is_target][np.asarray(nearest)[close]]
        # False candidates by themselves: of a few verdicts, every fold must leave some to learn from.
        false = int((~close).sum())
        of_found[~close] = (n_candidates + rng.permutation(false)) % folds
        n_picks, n_candidates = n_picks + count, n_candidates + false
        assigned.append((of_picks, of_found))
    return assigned
