"""Labels against F1: which candidates to show a person who has time for a few.

The candidates of the bundled models in a simulated domain outside of their training are judged by a simulated
annotator, who is wrong now and then. The verifier is fine-tuned on the verdicts, and measured on other
tomograms of the domain.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from t3ssfast.candidates import Candidates
from t3ssfast.curation.suggest import choose_next
from t3ssfast.errors import ConfigError, InputError, ReadError
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.models import LoadedModel, code_version, load_model
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.simulation.simulate import Simulation, simulate
from t3ssfast.tomogram import StrPath
from t3ssfast.training.bundled.conditions import CONDITIONS, SPECIMEN
from t3ssfast.training.calibrate import find_candidates
from t3ssfast.training.few_shot import UNSEEN_DOMAIN
from t3ssfast.training.fine_tune import (
    MIN_PICKS,
    TOLERANCE_ANGSTROM,
    fine_tune_verifier,
    verified_scores,
)

__all__ = ["DOMAINS", "STRATEGIES", "CurveSettings", "curate_curve", "verdicts_on"]

STRATEGIES = ("suggested", "random", "best-first")
SHAPE = (56, 224, 224)
WRONG_VERDICTS = 0.05
# Suggestions that are judged before new ones are asked for.
SITTING = 8
# Threshold of a detection by default.
THRESHOLD = 0.5
# Seeds of the first tomogram to judge and of the first to measure on; no other use has them.
JUDGED_SEED, HELD_OUT_SEED = 25_000_000, 25_100_000

# Physics of the domains by name; conditions that process tomograms afterwards are left out.
FEW_LABELS = "few labels"
DOMAINS: dict[str, dict[str, Any]] = {FEW_LABELS: UNSEEN_DOMAIN} | {
    condition.name: SPECIMEN | condition.physics
    for condition in CONDITIONS
    if condition.physics and not condition.has_process
}

Row = dict[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True)
class CurveSettings:
    """What all points of a curve have in common.

    Parameters
    ----------
    tomograms, held_out
        Number of tomograms to judge, and of others to measure on.
    folds, steps
        As for `fine_tune_verifier`.
    domain
        One of `DOMAINS`: "few labels", the domain of `train few-labels`, or a condition of microscopes that
        the bundled models are measured under.
    lowest_score
        Score of the bundled verifier from which candidates are shown to the annotator.
    """

    tomograms: int = 6
    held_out: int = 4
    folds: int = 4
    steps: int = 60
    domain: str = FEW_LABELS
    lowest_score: float = 0.01

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise ConfigError(f"The domain is {self.domain!r}; give one of {', '.join(map(repr, DOMAINS))}.")


def curate_curve(
    out: StrPath,
    *,
    labels: Sequence[int] = (16, 32, 64),
    seeds: Sequence[int] = (0,),
    settings: CurveSettings | None = None,
    limit: int | None = None,
    device: str = "cpu",
    log: Log = lambda line: None,
) -> list[Row]:
    """Measure F1 after fine-tuning on verdicts, on suggested, random and best candidates.

    Every point is a file in `out`, written when it is measured. A later call with the same settings measures
    what is missing, and several processes may measure different seeds into one folder at a time.

    Parameters
    ----------
    out
        Folder for points, models, curve.csv and the searched candidates.
    labels
        Numbers of verdicts.
    seeds
        Random seeds of choice, wrong verdicts, and fine-tuning.
    settings
        The default is `CurveSettings()`.
    limit
        Number of points to measure in this call; None: all.
    device
        As for `detect`.
    log
        Function called with a line of text for every point.

    Returns
    -------
    A row for each point that is measured so far, also by earlier calls; the first is the bundled verifier.

    Raises
    ------
    ConfigError
        If a number of verdicts is too small to learn from, or `out` holds points of other settings.
    """
    settings = settings or CurveSettings()
    if not labels or min(labels) < 2 * MIN_PICKS:
        raise ConfigError(f"The numbers of verdicts are {list(labels)}; give at least {2 * MIN_PICKS}.")
    folder = results_folder(Path(out))
    _check_settings(folder, settings)
    points = [("none", 0, 0)]
    points += [(name, count, seed) for seed in seeds for count in labels for name in STRATEGIES]
    missing = [point for point in points if not _file_of(folder, *point).is_file()]
    bench = _Bench(folder, settings, device, log)
    if missing[:limit]:
        bench.prepare()
    for strategy, count, seed in missing[:limit]:
        start = time.process_time()
        row = {"strategy": strategy, "labels": count, "seed": seed, **bench.measure(strategy, count, seed)}
        row["cpu_seconds"] = round(time.process_time() - start, 1)
        with atomic_path(_file_of(folder, strategy, count, seed)) as temporary:
            temporary.write_text(json.dumps(row) + "\n", encoding="utf-8")
        log(json.dumps(row))
    rows = _read_points(folder)
    _write_table(rows, folder / "curve.csv")
    return rows


def verdicts_on(
    shown: Sequence[Candidates],
    true: Sequence[npt.NDArray[np.bool_]],
    strategy: str,
    count: int,
    seed: int,
    wrong: float = WRONG_VERDICTS,
) -> list[Candidates]:
    """Return candidates with the verdicts of a simulated annotator on some of them.

    With one seed, fewer random candidates are a part of more, and a candidate gets the same verdict whatever
    it was chosen by.

    Parameters
    ----------
    shown, true
        Candidates of each tomogram, and which of them are true.
    strategy
        One of `STRATEGIES`.
    count
        Number of verdicts; all candidates are judged where there are fewer.
    wrong
        Share of wrong verdicts.
    """
    choice, errors = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    total, ends = sum(map(len, shown)), np.cumsum([len(some) for some in shown])[:-1]
    truth = np.concatenate(list(true))
    verdict = np.where(errors.random(total) < wrong, ~truth, truth)
    label = np.full(total, "", "<U8")

    def judged() -> list[Candidates]:
        parts = np.split(label, ends)
        return [replace(some, label=part) for some, part in zip(shown, parts, strict=True)]

    def judge(chosen: npt.NDArray[np.bool_]) -> None:
        label[chosen] = np.where(verdict[chosen], "accepted", "rejected")

    if strategy == "suggested":
        # Verdicts tell where to look next, as with `suggest --curation`.
        while (left := min(count, total) - int((label != "").sum())) > 0:
            judge(np.concatenate(choose_next(judged(), min(left, SITTING), seed=seed)) != "")
    else:
        score = np.concatenate([some.score for some in shown])
        order = choice.permutation(total) if strategy == "random" else np.argsort(-score, kind="stable")
        judge(np.isin(np.arange(total), order[:count]))
    return judged()


class _Bench:
    """Tomograms, candidates and truth of a curve; `prepare` makes them."""

    def __init__(self, folder: Path, settings: CurveSettings, device: str, log: Log) -> None:
        self.folder, self.settings, self.device, self.log = folder, settings, device, log

    def prepare(self) -> None:
        """Simulate and search the tomograms."""
        self.judged = _Domain("judged", self.settings.tomograms, JUDGED_SEED, self)
        self.held_out = _Domain("held-out", self.settings.held_out, HELD_OUT_SEED, self)

    def measure(self, strategy: str, count: int, seed: int) -> Row:
        """Return the verdicts of a point, and the metrics on the held-out tomograms."""
        if strategy == "none":
            return self.held_out.metrics(load_model(None, model_kind="verifier"))
        domain = self.judged
        picks = verdicts_on(domain.shown, domain.true, strategy, count, seed)
        given = np.concatenate([some.label for some in picks]).tolist()
        row: Row = {name: given.count(name) for name in ("accepted", "rejected")}
        try:
            path = fine_tune_verifier(
                [made.tomogram for made in domain.made],
                picks,
                self.folder / f"verifier_{strategy}_{count}_{seed}.safetensors",
                membranes=[made.membrane for made in domain.made],
                found=domain.found,
                contrast="dark",
                folds=self.settings.folds,
                seed=seed,
                resume=True,
                device=self.device,
                steps=self.settings.steps,
            )
        except InputError as error:
            # What a user would be left with: nothing was learned, and the bundled verifier remains.
            self.log(f"{strategy}, {count} labels: {error}")
            row["refused"] = True
            return row | self.held_out.metrics(load_model(None, model_kind="verifier"))
        return row | self.held_out.metrics(load_model(path, model_kind="verifier"))


class _Domain:
    """Simulated tomograms, and the candidates of the bundled models in them."""

    def __init__(self, name: str, count: int, seed: int, bench: _Bench) -> None:
        physics, lowest = DOMAINS[bench.settings.domain], bench.settings.lowest_score
        self.made: list[Simulation] = [simulate(seed + k, SHAPE, **physics) for k in range(count)]
        bundled = load_model(None, model_kind="verifier")
        classifier = load_model(None, model_kind="classifier")
        described = {"domain": physics, "shape": SHAPE, "seed": seed, "count": count}
        described |= {"classifier": classifier.sha256, "version": code_version()}
        # What the classifier finds, for the tuned verifiers to examine; and what a user would be shown.
        self.found = find_candidates(
            classifier,
            [one.tomogram for one in self.made],
            membranes=[one.membrane for one in self.made],
            contrasts=["dark"] * count,
            store=CheckpointStore(bench.folder, key_of(described), name=name),
            device=bench.device,
            log=bench.log,
        )
        examined = self.examined(bundled)
        self.shown = [some[some.score >= lowest] for some in examined]
        self.true = [_is_true(some, one.truth) for some, one in zip(self.shown, self.made, strict=True)]
        particles = sum(len(one.truth) for one in self.made)
        true = sum(int(some.sum()) for some in self.true)
        bench.log(
            f"{name}: {particles} T3SS; {sum(map(len, self.shown))} candidates with a score of at least "
            f"{lowest:g}, {true} of them true"
        )

    def examined(self, verifier: LoadedModel) -> list[Candidates]:
        """Return the candidates of each tomogram with calibrated scores of a verifier, best first."""
        calibration = read_calibration(verifier.metadata.calibration)
        examined = []
        for made, found in zip(self.made, self.found, strict=True):
            scored = verified_scores(made.tomogram, found, np.arange(len(found)), verifier, 1)
            score = np.asarray(scored if calibration is None else calibration.apply(scored), np.float32)
            details = {"classifier_score": found.score, "verifier_score": score}
            examined.append(replace(found, score=score, details=details).sorted_by_score())
        return examined

    def metrics(self, verifier: LoadedModel) -> Row:
        """Return F1, precision and recall at the default threshold, the best F1, and average precision."""
        found, truth = self.examined(verifier), [one.truth for one in self.made]
        whole = evaluate(found, truth, TOLERANCE_ANGSTROM)
        kept = evaluate([some[some.score >= THRESHOLD] for some in found], truth, TOLERANCE_ANGSTROM)
        row = {name: getattr(kept, name) for name in ("f1", "precision", "recall")}
        row |= {"best_f1": whole.best_f1[0], "average_precision": whole.average_precision}
        return {name: round(float(value), 4) for name, value in row.items()}


def _is_true(candidates: Candidates, truth: Candidates) -> npt.NDArray[np.bool_]:
    """Return (n,) which candidates are on a T3SS."""
    distance, _ = cKDTree(truth.centre_zyx).query(candidates.centre_zyx)
    return np.asarray(distance * candidates.voxel_size_angstrom <= TOLERANCE_ANGSTROM)


def _file_of(folder: Path, strategy: str, count: int, seed: int) -> Path:
    return folder / f"point_{strategy}_{count}_{seed}.json"


def _check_settings(folder: Path, settings: CurveSettings) -> None:
    """Write the settings down; raise ConfigError where the folder has points of others."""
    path, wanted = folder / "settings.json", asdict(settings)
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        return
    known = _read_json(path)
    if known != wanted:
        raise ConfigError(
            f"{display_path(folder)}: its points were measured with {known}, not {wanted}; give another "
            "folder, or the same settings."
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"{display_path(path)}: it cannot be read ({error}); remove it.") from error


def _read_points(folder: Path) -> list[Row]:
    """Return the rows of all points, by number of labels, strategy and seed."""
    rows: list[Row] = [_read_json(path) for path in folder.glob("point_*.json")]
    order = ("none", *STRATEGIES)
    return sorted(rows, key=lambda row: (row["labels"], order.index(row["strategy"]), row["seed"]))


def _write_table(rows: Sequence[Row], path: Path) -> None:
    import pandas as pd

    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
