"""Labels against F1: which candidates to show a person who has time for a few.

A detection with the bundled models in a simulated domain outside of their training is judged by a simulated
annotator, who is wrong now and then. The verifier is fine-tuned on the verdicts and measured on other
tomograms of the domain. Candidates are chosen by `t3ssfast.suggest`, at random, or best first.

    python bench/curate_curve.py curve/ --labels 16 32 64 --tomograms 6

Writes curve.csv and curve.json into the folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from t3ssfast.candidates import Candidates
from t3ssfast.curation.suggest import choose_next
from t3ssfast.errors import InputError
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.models import load_model
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.calibrate import find_candidates
from t3ssfast.training.few_shot import UNSEEN_DOMAIN
from t3ssfast.training.fine_tune import fine_tune_verifier, verified_scores

SHAPE = (56, 224, 224)
WRONG_VERDICTS = 0.05
TOLERANCE_ANGSTROM = 120.0
STRATEGIES = ("suggested", "random", "best first")
# Threshold of a detection by default, and the lowest score that a user would have kept to look at.
THRESHOLD = 0.5
SHOWN_SCORE = 0.01


class Domain:
    """Simulated tomograms with their truth, and the candidates of the bundled models in them."""

    def __init__(self, count: int, seed: int, log: Any) -> None:
        made = [simulate(seed + k, SHAPE, **UNSEEN_DOMAIN) for k in range(count)]
        self.tomograms: list[Tomogram] = [one.tomogram for one in made]
        self.membranes = [one.membrane for one in made]
        self.truth = [one.truth for one in made]
        common: dict[str, Any] = {"membranes": self.membranes, "device": "cpu", "log": log}
        common["contrasts"] = ["dark"] * count
        # What the classifier finds, for the tuned verifiers to examine; and what a user would be shown.
        self.peaks = find_candidates(None, self.tomograms, **common)
        bundled = load_model(None, model_kind="verifier")
        examined = [self.examined(k, bundled) for k in range(count)]
        self.shown = [some[some.score >= SHOWN_SCORE] for some in examined]

    def examined(self, k: int, verifier: Any) -> Candidates:
        """Return the candidates of a tomogram with the calibrated scores of a verifier, best first."""
        found = self.peaks[k]
        score = verified_scores(self.tomograms[k], found, np.arange(len(found)), verifier, 1)
        calibration = read_calibration(verifier.metadata.calibration)
        score = score if calibration is None else calibration.apply(score)
        details = {"classifier_score": found.score, "verifier_score": np.asarray(score, np.float32)}
        return replace(found, score=score, details=details).sorted_by_score()

    def is_true(self, k: int) -> np.ndarray:
        """Return which of the shown candidates of a tomogram are on a T3SS."""
        some, truth = self.shown[k], self.truth[k]
        distance, _ = KDTree(truth.centre_zyx).query(some.centre_zyx)
        return distance * some.voxel_size_angstrom <= TOLERANCE_ANGSTROM


def judged(domain: Domain, strategy: str, count: int, seed: int) -> list[Candidates]:
    """Return the shown candidates with the verdicts of the annotator on `count` of them."""
    rng = np.random.default_rng([seed, STRATEGIES.index(strategy), count])
    shown = domain.shown
    lengths = np.cumsum([len(some) for some in shown])[:-1]
    total = sum(map(len, shown))
    if strategy == "suggested":
        chosen = np.concatenate(choose_next(shown, count, seed=seed)) != ""
    else:
        score = np.concatenate([some.score for some in shown])
        order = rng.permutation(total) if strategy == "random" else np.argsort(-score, kind="stable")
        chosen = np.isin(np.arange(total), order[:count])
    true = np.concatenate([domain.is_true(k) for k in range(len(shown))])
    verdict = np.where(rng.random(total) < WRONG_VERDICTS, ~true, true)
    label = np.where(chosen, np.where(verdict, "accepted", "rejected"), "")
    return [replace(some, label=part) for some, part in zip(shown, np.split(label, lengths), strict=True)]


def measured(domain: Domain, verifier: Any) -> dict[str, float]:
    """Return F1 at the default threshold, the best one, and average precision on held-out tomograms."""
    found = [domain.examined(k, verifier) for k in range(len(domain.tomograms))]
    whole = evaluate(found, domain.truth, TOLERANCE_ANGSTROM)
    kept = evaluate([some[some.score >= THRESHOLD] for some in found], domain.truth, TOLERANCE_ANGSTROM)
    return {
        "f1": kept.f1,
        "precision": kept.precision,
        "recall": kept.recall,
        "best_f1": whole.best_f1[0],
        "average_precision": whole.average_precision,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--tomograms", type=int, default=6, help="tomograms to judge")
    parser.add_argument("--held-out", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a fine-tuning")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "curve.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["strategy"], row["labels"], row["seed"]) for row in rows}

    def log(line: str) -> None:
        print(line, flush=True)

    cache = options.out / f"domains_{options.tomograms}_{options.held_out}.pickle"
    if not cache.exists():
        made = Domain(options.tomograms, 25_000_000, log), Domain(options.held_out, 25_100_000, log)
        cache.write_bytes(pickle.dumps(made))
    domain, held_out = pickle.loads(cache.read_bytes())
    true = sum(int(domain.is_true(k).sum()) for k in range(options.tomograms))
    log(f"{sum(map(len, domain.shown))} candidates to judge, {true} true; {sum(map(len, domain.truth))} T3SS")

    def record(strategy: str, labels: int, seed: int, verifier: Any, verdicts: dict[str, int]) -> None:
        rows.append(
            {"strategy": strategy, "labels": labels, "seed": seed, **verdicts, **measured(held_out, verifier)}
        )
        path.write_text(json.dumps(rows, indent=1))
        log(json.dumps(rows[-1]))

    if not rows:
        record("none", 0, 0, load_model(None, model_kind="verifier"), {})
    for seed in options.seeds:
        for labels in options.labels:
            for strategy in STRATEGIES:
                if (strategy, labels, seed) in done:
                    continue
                picks = judged(domain, strategy, labels, seed)
                given = np.concatenate([some.label for some in picks]).tolist()
                verdicts = {name: given.count(name) for name in ("accepted", "rejected")}
                tuned = options.out / f"verifier_{strategy.replace(' ', '_')}_{labels}_{seed}.pt"
                try:
                    fine_tune_verifier(
                        domain.tomograms,
                        picks,
                        tuned,
                        membranes=domain.membranes,
                        contrast="dark",
                        folds=options.folds,
                        seed=seed,
                        steps=options.steps,
                        found=domain.peaks,
                    )
                    model = load_model(tuned, model_kind="verifier")
                except InputError as error:
                    # Nothing was learned, and the bundled verifier remains.
                    log(f"{strategy}, {labels} labels: {error}")
                    model = load_model(None, model_kind="verifier")
                record(strategy, labels, seed, model, verdicts)
    table = pd.DataFrame(rows)
    table.to_csv(options.out / "curve.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
