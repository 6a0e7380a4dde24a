"""Detection under the conditions of `t3ssfast.training.bundled.conditions`, and thresholds without labels.

``python bench/measure_conditions.py -o FOLDER --tomograms 5`` detects in every condition and writes a record
per tomogram, which a later run reuses. ``--only NAME`` (repeatable) restricts the conditions, and
``--home 24`` adds tomograms with the physics of the calibration. Then FOLDER/conditions.json and
FOLDER/conditions.md hold the metrics of every condition, and of each way to set the threshold. ``--summary``
only reads the records. Needs scikit-image for two of the filters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection import detect
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.decoys import default_log_odds
from t3ssfast.evaluation.calibration import Calibration, read_calibration
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.evaluation.false_discovery import fdr_threshold
from t3ssfast.models import load_model
from t3ssfast.simulation.simulate import random_physics, simulate
from t3ssfast.training.bundled.conditions import CONDITIONS, SHAPE, Sample, make_sample

Record = dict[str, Any]
Array = npt.NDArray[np.float64]

ASKED = 0.05
HOME = "the physics of the calibration"
# Of tomograms with the physics of the calibration, whose ranges are a quarter wider than those of training.
HOME_SEED, WIDENING = 78_000_000, 0.25
# Tomograms of a data set, and data sets that are drawn from the tomograms of all conditions.
TOMOGRAMS = 5
MIXED_SETS = 100


def measure(sample: Sample, condition: str) -> Record:
    """Detect all candidates and decoys, and compare with the truth."""
    found = detect(sample.tomogram, config=DetectConfig(max_fdr=ASKED), progress=False)
    assert found.competition is not None
    candidates = found.competition.candidates
    hits = evaluate(candidates, sample.truth, distractors=sample.distractors).matches[0]
    nearest = _kinds(candidates, sample.distractors)
    return {
        "condition": condition,
        "truth": len(sample.truth),
        "true": [bool(hit) for hit in hits.hits],
        "kind": nearest,
        "log_odds": found.competition.log_odds.tolist(),
        "decoy_log_odds": found.competition.decoy_log_odds.tolist(),
        "statistics": found.provenance["calibration_distance"]["statistics"],
    }


def _kinds(candidates: Candidates, others: Candidates, tolerance_angstrom: float = 120.0) -> list[str]:
    """The kind of other particle at each candidate; "" where there is none."""
    if not len(others) or not len(candidates):
        return [""] * len(candidates)
    offset = (candidates.centre_zyx[:, None] - others.centre_zyx) * candidates.voxel_size_angstrom
    distance = np.linalg.norm(offset, axis=2)
    nearest = distance.argmin(axis=1)
    near = distance.min(axis=1) <= tolerance_angstrom
    return [str(others.kind[k]) if ok else "" for k, ok in zip(nearest, near, strict=True)]


def home_sample(index: int) -> Sample:
    """A tomogram with the physics that the scores were calibrated on."""
    physics = random_physics(HOME_SEED + index, widen=WIDENING, cell_radius_nm=75.0)
    made = simulate(HOME_SEED + index, SHAPE, **physics.to_dict())
    return Sample(made.tomogram, made.truth, made.distractors)


def by_quantile(records: Sequence[Record], share: float) -> float:
    """The threshold above which a fixed share of all candidates is reported."""
    values = _pooled(records, "log_odds")
    return float(np.quantile(values, 1 - share)) if len(values) else np.inf


def by_mixture(records: Sequence[Record]) -> float:
    """Where a mixture of two normal distributions gives even odds; the upper one is taken for the T3SS."""
    x = _pooled(records, "log_odds")
    if len(x) < 5:
        return np.inf
    mean, spread = np.quantile(x, (0.4, 0.95)), np.full(2, max(x.std() / 2, 0.3))
    weight = np.array([0.8, 0.2])
    for _ in range(200):
        density = weight * np.exp(-0.5 * ((x[:, None] - mean) / spread) ** 2) / spread
        share = density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)
        total = share.sum(axis=0) + 1e-9
        weight, mean = total / len(x), (share * x[:, None]).sum(axis=0) / total
        spread = np.sqrt((share * (x[:, None] - mean) ** 2).sum(axis=0) / total + 0.05)
    at = np.linspace(mean[0], mean[1], 400)
    upper, lower = (weight[k] * np.exp(-0.5 * ((at - mean[k]) / spread[k]) ** 2) / spread[k] for k in (1, 0))
    even = np.flatnonzero(upper >= lower)
    return float(at[even[0]]) if len(even) else np.inf


def _pooled(records: Sequence[Record], name: str) -> Array:
    return np.concatenate([np.zeros(0), *(np.asarray(r[name], np.float64) for r in records)])


def counts(records: Sequence[Record], threshold: float, *, beat_decoys: bool = False) -> tuple[int, int, int]:
    """True and false candidates at or above a threshold, and all T3SS."""
    score, true = _pooled(records, "log_odds"), _pooled(records, "true") > 0
    kept = score >= threshold
    if beat_decoys:
        kept &= score > _pooled(records, "decoy_log_odds")
    return int((kept & true).sum()), int((kept & ~true).sum()), sum(r["truth"] for r in records)


def f1(true: int, false: int, truth: int) -> float:
    """F1, 1 where there is nothing and nothing was found."""
    return 2 * true / (true + false + truth) if true + false + truth else 1.0


def best_f1(records: Sequence[Record]) -> float:
    """The highest F1 of any threshold."""
    return max((f1(*counts(records, t)) for t in _pooled(records, "log_odds")), default=0.0)


@cache
def _calibration() -> Calibration:
    """The calibration of the bundled models."""
    calibration = read_calibration(load_model(None, model_kind="verifier").metadata.calibration)
    assert calibration is not None
    return calibration


def thresholds(share: float) -> dict[str, Callable[[Sequence[Record]], tuple[float, bool]]]:
    """Ways to set the threshold of a data set: the threshold, and whether candidates must beat decoys."""
    fixed = default_log_odds(_calibration())

    def decoys(records: Sequence[Record]) -> tuple[float, bool]:
        pairs = ([r[name] for r in records] for name in ("log_odds", "decoy_log_odds"))
        return fdr_threshold(*pairs, ASKED, calibrated=fixed).threshold, True

    return {
        "fixed": lambda records: (fixed, False),
        "quantile": lambda records: (by_quantile(records, share), False),
        "mixture": lambda records: (by_mixture(records), False),
        "decoys": decoys,
    }


def home_share(records: Sequence[Record]) -> float:
    """The share of candidates with the best F1 in tomograms like those of the calibration."""
    grid = np.linspace(0.02, 0.6, 59)
    return float(max(grid, key=lambda share: f1(*counts(records, by_quantile(records, share)))))


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Metrics of every condition and way to set the threshold."""
    home = [r for r in records if r["condition"] == HOME]
    names = [c.name for c in CONDITIONS if any(r["condition"] == c.name for r in records)]
    ways = thresholds(home_share(home) if home else 0.2)
    domain = _calibration().domain
    rows, sets = {}, {way: [] for way in ways}
    for name in [HOME] * bool(home) + names:
        own = [r for r in records if r["condition"] == name]
        row: dict[str, Any] = {"tomograms": len(own), "best_f1": best_f1(own)}
        row["truth"] = sum(r["truth"] for r in own)
        for way, find in ways.items():
            row[way] = _row(own, find)
            if len(own) >= TOMOGRAMS and name != HOME:
                sets[way].append(row[way])
        pairs = ([r[n] for r in own] for n in ("log_odds", "decoy_log_odds"))
        found = fdr_threshold(*pairs, ASKED, calibrated=ways["fixed"](own)[0])
        row["interval"], row["promised"] = (found.low, found.high), found.promised
        score, decoy, true = (_pooled(own, n) for n in ("log_odds", "decoy_log_odds", "true"))
        lost = decoy >= score
        row["decoy_wins_of_false"] = [int((lost & (true == 0)).sum()), int((true == 0).sum())]
        row["decoy_wins_of_true"] = [int((lost & (true == 1)).sum()), int((true == 1).sum())]
        if domain is not None:
            distances = [domain.distance(r["statistics"]) for r in own]
            row["distance"] = [round(d, 3) if d is not None else None for d in distances]
            row["unlike"] = sum(d is None or d > 1 for d in distances)
        rows[name] = row
    result: dict[str, Any] = {"asked": ASKED, "conditions": rows}
    result["data_sets"] = {way: _over_sets(found) for way, found in sets.items() if found}
    others = [r for r in records if r["condition"] != HOME]
    if len(others) >= 2 * TOMOGRAMS:
        rng = np.random.default_rng(0)
        drawn = [rng.choice(len(others), TOMOGRAMS, replace=False) for _ in range(MIXED_SETS)]
        mixed = [[others[k] for k in chosen] for chosen in drawn]
        result["mixed_data_sets"] = {
            way: _over_sets([_row(own, find) for own in mixed]) for way, find in ways.items()
        }
    return result


def _row(records: Sequence[Record], find: Callable[[Sequence[Record]], tuple[float, bool]]) -> dict[str, Any]:
    """Counts, F1 and realised false-discovery rate of one way to set the threshold."""
    threshold, beat = find(records)
    true, false, truth = counts(records, threshold, beat_decoys=beat)
    return {"true": true, "false": false, "f1": f1(true, false, truth), "fdr": false / max(true + false, 1)}


def _over_sets(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over data sets."""
    return {
        "data_sets": len(found),
        "fdr_within_0.05_of_asked": float(np.mean([r["fdr"] <= ASKED + 0.05 for r in found])),
        "mean_fdr": float(np.mean([r["fdr"] for r in found])),
        "mean_f1": float(np.mean([r["f1"] for r in found])),
    }


def table(summary: dict[str, Any]) -> str:
    """The rows of a summary in Markdown."""
    lines = [
        (
            "| condition | tomograms; T3SS | fixed: TP, FP, F1 | best F1 | quantile: F1 | mixture: F1 "
            "| decoys: TP, FP, F1 | realised FDR (interval) | decoys that win: of false; of true "
            "| unlike home |"
        ),
        "|---|---|---|---:|---:|---:|---|---|---|---|",
    ]
    for name, row in summary["conditions"].items():
        fixed, decoys = row["fixed"], row["decoys"]
        promise = "" if row["promised"] else ", not promised"
        unlike = f"{row['unlike']} of {row['tomograms']}" if "unlike" in row else ""
        cells = [
            name,
            f"{row['tomograms']}; {row['truth']}",
            f"{fixed['true']}, {fixed['false']}, {fixed['f1']:.2f}",
            f"{row['best_f1']:.2f}",
            f"{row['quantile']['f1']:.2f}",
            f"{row['mixture']['f1']:.2f}",
            f"{decoys['true']}, {decoys['false']}, {decoys['f1']:.2f}",
            f"{decoys['fdr']:.2f} ({row['interval'][0]:.2f}-{row['interval'][1]:.2f}{promise})",
            "; ".join("{} of {}".format(*row[f"decoy_wins_of_{kind}"]) for kind in ("false", "true")),
            unlike,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def read_records(folder: Path) -> list[Record]:
    """All records of a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("record_*.json"))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and summarise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--tomograms", type=int, default=4)
    parser.add_argument("--home", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - {c.name for c in CONDITIONS}:
        parser.error(f"there is no condition {sorted(unknown)[0]!r}")
    options.out.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[str, str, Callable[[], Sample]]] = [
        (f"home_{k:03d}", HOME, lambda k=k: home_sample(k)) for k in range(options.home)
    ]
    for k in range(options.tomograms):
        for number, condition in enumerate(CONDITIONS):
            if not options.only or condition.name in options.only:
                make = lambda c=condition, k=k: make_sample(c, k)  # noqa: E731
                jobs.append((f"{number:02d}_{k}", condition.name, make))
    for name, condition_name, make in jobs if not options.summary else []:
        path = options.out / f"record_{name}.json"
        if not path.exists():
            path.write_text(json.dumps(measure(make(), condition_name)))
            print(path.name, condition_name, flush=True)
    summary = summarise(read_records(options.out))
    (options.out / "conditions.json").write_text(json.dumps(summary, indent=1) + "\n")
    (options.out / "conditions.md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
