"""Candidates of a report against known particles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.evaluation.evaluate import evaluate

__all__ = ["Comparison", "compare"]

TOLERANCE_ANGSTROM = 120.0
NOTHING = "nothing"
# Points of the precision-recall curve in the page.
MAX_CURVE_POINTS = 300


@dataclass(frozen=True)
class Comparison:
    """What a report shows of the truth.

    `outcomes` has "tp" or "fp" for each candidate of each tomogram, `missed` the particles without a
    candidate, and `summary` plain values for the page.
    """

    outcomes: list[list[str]]
    missed: list[Candidates]
    summary: dict[str, Any]


def compare(candidates: Sequence[Candidates], truth: Sequence[Candidates]) -> Comparison:
    """Compare candidates with the known particles of the same tomograms, one entry each.

    A candidate is true if it matches a particle of its own kind. Particles of kinds that no candidate has
    count for the confusion of kinds only.
    """
    kinds = sorted({str(kind) for some in candidates for kind in some.kind}) or ["t3ss"]
    found_of, known_of, rows_of = [], [], []
    for index, (some, known) in enumerate(zip(candidates, truth, strict=True)):
        for kind in kinds:
            found_of.append(some[some.kind == kind])
            known_of.append(known[known.kind == kind])
            rows_of.append((index, np.flatnonzero(some.kind == kind), np.flatnonzero(known.kind == kind)))
    result = evaluate(found_of, known_of, TOLERANCE_ANGSTROM)
    outcomes = [["fp"] * len(some) for some in candidates]
    is_missed = [np.isin(known.kind, kinds) for known in truth]
    for (index, rows, known_rows), match in zip(rows_of, result.matches, strict=True):
        for pair in match.pairs:
            outcomes[index][rows[pair.candidate]] = "tp"
            is_missed[index][known_rows[pair.truth]] = False
    missed = [known[rows] for known, rows in zip(truth, is_missed, strict=True)]
    points = np.unique(
        np.linspace(0, max(len(result.curve_score) - 1, 0), MAX_CURVE_POINTS).astype(int)
    ).tolist()
    summary = {
        "truth": result.n_truth,
        "tp": result.true_positives,
        "fp": result.false_positives,
        "fn": result.false_negatives,
        "precision": round(result.precision, 4),
        "recall": round(result.recall, 4),
        "f1": round(result.f1, 4),
        "average_precision": round(result.average_precision, 4),
        "tolerance_nm": TOLERANCE_ANGSTROM / 10,
        "curve": [
            [round(float(curve[k]), 4) for k in points if k < len(curve)]
            for curve in (result.curve_score, result.curve_precision, result.curve_recall)
        ],
        "confusion": _confusion(candidates, truth),
    }
    return Comparison(outcomes, missed, summary)


def _confusion(candidates: Sequence[Candidates], truth: Sequence[Candidates]) -> dict[str, Any]:
    """Count candidates by their kind and that of the particle at their place; "nothing" on either side."""
    pairs = evaluate(list(candidates), list(truth), TOLERANCE_ANGSTROM).pairs
    counts: Counter[tuple[str, str]] = Counter()
    for index, (some, known) in enumerate(zip(candidates, truth, strict=True)):
        here = [pair for pair in pairs if pair.tomogram == index]
        counts.update((str(some.kind[p.candidate]), str(known.kind[p.truth])) for p in here)
        free = np.setdiff1d(np.arange(len(some)), [p.candidate for p in here])
        counts.update((str(kind), NOTHING) for kind in some.kind[free])
        free = np.setdiff1d(np.arange(len(known)), [p.truth for p in here])
        counts.update((NOTHING, str(kind)) for kind in known.kind[free])
    rows = sorted({found for found, _ in counts}, key=lambda kind: (kind == NOTHING, kind))
    columns = sorted({true for _, true in counts}, key=lambda kind: (kind == NOTHING, kind))
    table = [[counts[row, column] for column in columns] for row in rows]
    return {"found": rows, "true": columns, "counts": table}
