"""Candidates against picked truth: who was found, who was missed, what was imagined.

Candidates and truth are compared in Angstrom, each in its own voxel size, and matched one to one: at most
one candidate counts for a particle, and a second one on the same particle is a false positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import atomic_path
from t3ssfast.types import Candidates

if TYPE_CHECKING:
    import os

    from rich.table import Table

__all__ = ["Evaluation", "Pair", "evaluate"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A candidate and the particle it found.

    Parameters
    ----------
    tomogram
        Index of the tomogram among those evaluated.
    candidate, truth
        Indices into that tomogram's candidates and truth.
    distance_angstrom
        Between their centres.
    normal_error_degrees
        Angle between their normals, 0 to 180; above 90 the polarity is wrong.
    """

    tomogram: int
    candidate: int
    truth: int
    distance_angstrom: float
    normal_error_degrees: float


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; every figure follows from these fields.

    Where nothing could be counted the figures are defined as follows. Precision is 1 when there are no
    candidates (nothing said, nothing wrong); recall is 1 when there is no truth (nothing to miss); F is 1
    when there are neither, and 0 when only one of the two is empty. Average precision is 1 when there are
    neither, and 0 when only one of the two is empty. Angles are NaN without pairs.

    Parameters
    ----------
    tolerance_angstrom
        Largest distance of a pair.
    n_candidates, n_truth
        How many there were.
    pairs
        One for each true positive.
    curve_score, curve_precision, curve_recall
        At each distinct score, highest first: precision and recall of the candidates with that score or
        more, matched as well as possible among themselves.
    false_positive_kinds
        False positives by the look-alike they sit on; "other" for those on none. Empty where no
        distractors were given.
    """

    tolerance_angstrom: float
    n_candidates: int
    n_truth: int
    pairs: tuple[Pair, ...]
    curve_score: FloatArray
    curve_precision: FloatArray
    curve_recall: FloatArray
    false_positive_kinds: dict[str, int] = field(default_factory=dict)

    @property
    def true_positives(self) -> int:
        """Candidates that found a particle (TP)."""
        return len(self.pairs)

    @property
    def false_positives(self) -> int:
        """Candidates that found none (FP)."""
        return self.n_candidates - len(self.pairs)

    @property
    def false_negatives(self) -> int:
        """Particles that no candidate found (FN)."""
        return self.n_truth - len(self.pairs)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1 without candidates."""
        return self.true_positives / self.n_candidates if self.n_candidates else 1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 without truth."""
        return self.true_positives / self.n_truth if self.n_truth else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.f_beta(1.0)

    def f_beta(self, beta: float) -> float:
        """(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP): recall counts `beta` times as much as precision."""
        if not (math.isfinite(beta) and beta > 0):
            raise ConfigError(f"beta is {beta!r}; give a number above 0.")
        weight = beta**2
        denominator = (1 + weight) * self.true_positives + weight * self.false_negatives
        denominator += self.false_positives
        return (1 + weight) * self.true_positives / denominator if denominator else 1.0

    @property
    def average_precision(self) -> float:
        """Sum over the curve of precision times the gain in recall (no interpolation)."""
        if self.n_truth == 0 or self.n_candidates == 0:
            return float(self.n_truth == self.n_candidates)
        return float(np.sum(np.diff(self.curve_recall, prepend=0.0) * self.curve_precision))

    @property
    def best_f1(self) -> tuple[float, float]:
        """Highest F1 on the curve and the score threshold that gives it; (0, NaN) without a curve."""
        total = self.curve_precision + self.curve_recall
        if self.n_truth == 0 or len(total) == 0:
            return 0.0, math.nan
        f1 = 2 * self.curve_precision * self.curve_recall / np.maximum(total, 1e-12)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.curve_score[best])

    @property
    def median_distance_angstrom(self) -> float:
        """Of the pairs; NaN without pairs."""
        return _median([pair.distance_angstrom for pair in self.pairs])

    @property
    def median_normal_error_degrees(self) -> float:
        """Of the pairs, 0 to 180; NaN without pairs."""
        return _median([pair.normal_error_degrees for pair in self.pairs])

    @property
    def polarity_right(self) -> float:
        """Fraction of the pairs whose normals point to the same side; NaN without pairs."""
        right = [pair.normal_error_degrees < 90 for pair in self.pairs]
        return sum(right) / len(right) if right else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Every figure, as plain numbers that JSON can hold (None for NaN)."""
        best_f1, best_threshold = self.best_f1
        figures: dict[str, Any] = {
            "tolerance_angstrom": self.tolerance_angstrom,
            "candidates": self.n_candidates,
            "truth": self.n_truth,
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "f2": self.f_beta(2.0),
            "average_precision": self.average_precision,
            "best_f1": best_f1,
            "best_f1_threshold": best_threshold,
            "median_distance_angstrom": self.median_distance_angstrom,
            "median_normal_error_degrees": self.median_normal_error_degrees,
            "polarity_right": self.polarity_right,
        }
        figures = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in figures.items()}
        figures["false_positive_kinds"] = dict(self.false_positive_kinds)
        figures["curve"] = {
            "score": self.curve_score.tolist(),
            "precision": self.curve_precision.tolist(),
            "recall": self.curve_recall.tolist(),
        }
        return figures

    def table(self) -> Table:
        """The figures as a rich table, for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Evaluation, matched within {self.tolerance_angstrom / 10:g} nm")
        table.add_column("figure")
        table.add_column("value", justify="right")
        best_f1, threshold = self.best_f1
        rows = [
            ("candidates", f"{self.n_candidates}"),
            ("truth", f"{self.n_truth}"),
            ("true positives (TP)", f"{self.true_positives}"),
            ("false positives (FP)", f"{self.false_positives}"),
            ("false negatives (FN)", f"{self.false_negatives}"),
            ("precision", f"{self.precision:.3f}"),
            ("recall", f"{self.recall:.3f}"),
            ("F1", f"{self.f1:.3f}"),
            ("average precision", f"{self.average_precision:.3f}"),
        ]
        if not math.isnan(threshold):
            rows.append(("best F1 on the curve", f"{best_f1:.3f} at score {threshold:.3f}"))
        if self.pairs:
            rows += [
                ("median distance", f"{self.median_distance_angstrom / 10:.1f} nm"),
                ("median normal error", f"{self.median_normal_error_degrees:.0f} degrees"),
                ("polarity right", f"{100 * self.polarity_right:.0f} %"),
            ]
        rows += [(escape(f"FP on {kind}"), f"{count}") for kind, count in self.false_positive_kinds.items()]
        for row in rows:
            table.add_row(*row)
        return table

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the precision-recall curve as a PNG, atomically.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5, 4.0), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.step(self.curve_recall, self.curve_precision, where="post", color="0.2")
        axes.plot([self.recall], [self.precision], "o", color="tab:red", label=f"all, F1 {self.f1:.2f}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_title(f"average precision {self.average_precision:.2f}")
        axes.legend(loc="lower left")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")


def evaluate(
    candidates: Candidates | Sequence[Candidates],
    truth: Candidates | Sequence[Candidates],
    tolerance_angstrom: float = 120.0,
    *,
    distractors: Candidates | Sequence[Candidates] | None = None,
) -> Evaluation:
    """Count true and false positives of candidates against truth.

    Candidates and truth of one tomogram are matched one to one within the tolerance: as many pairs as
    possible and, of those matchings, the one of least summed distance. Several tomograms are pooled.

    Parameters
    ----------
    candidates, truth
        Of one tomogram, or sequences of equal length with one entry for each tomogram. Their voxel sizes
        may differ; centres are compared as voxel coordinate times voxel size.
    tolerance_angstrom
        Largest distance between the centres of a pair.
    distractors
        Known look-alikes, in the same manner; a false positive within the tolerance of one (the nearest)
        is counted under its kind.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError, ConfigError
        If the sequences differ in length or the tolerance is not a positive number.
    """
    if not (np.isfinite(tolerance_angstrom) and tolerance_angstrom > 0):
        raise ConfigError(f"tolerance_angstrom is {tolerance_angstrom!r}; give a length above 0.")
    found, known = _as_list(candidates), _as_list(truth)
    lookalikes = None if distractors is None else _as_list(distractors)
    if len(found) != len(known) or (lookalikes is not None and len(lookalikes) != len(found)):
        raise InputError(
            f"Candidates of {len(found)} tomograms and truth of {len(known)} were given; give one of each "
            "(and of the distractors, if any) for every tomogram."
        )
    pairs: list[Pair] = []
    gains: list[FloatArray] = []
    kinds: dict[str, int] = {}
    for index, (some, true) in enumerate(zip(found, known, strict=True)):
        links = _links(_angstrom(some), _angstrom(true), tolerance_angstrom)
        matched = _match(*links, len(some), len(true))
        pairs += _pairs(index, some, true, matched)
        gains.append(_gains(some.score, links[0], links[1], len(true)))
        if lookalikes is not None:
            missed = np.setdiff1d(np.arange(len(some)), matched[0])
            _count_kinds(kinds, some[missed], lookalikes[index], tolerance_angstrom)
    n_truth = sum(map(len, known))
    scores = np.concatenate([c.score for c in found]) if found else np.zeros(0)
    curve = _curve(scores, np.concatenate(gains) if gains else np.zeros(0), n_truth)
    return Evaluation(
        tolerance_angstrom=float(tolerance_angstrom),
        n_candidates=len(scores),
        n_truth=n_truth,
        pairs=tuple(pairs),
        curve_score=curve[0],
        curve_precision=curve[1],
        curve_recall=curve[2],
        false_positive_kinds=kinds,
    )


def _as_list(value: Candidates | Sequence[Candidates]) -> list[Candidates]:
    return [value] if isinstance(value, Candidates) else list(value)


def _angstrom(candidates: Candidates) -> FloatArray:
    return candidates.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _links(a: FloatArray, b: FloatArray, tolerance: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Every (a, b) within the tolerance: indices and distances, in order of a, then b."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    near = KDTree(a).query_ball_tree(KDTree(b), tolerance)
    rows = np.repeat(np.arange(len(a)), [len(n) for n in near])
    columns = np.array([j for n in near for j in sorted(n)], dtype=np.int64)
    return rows, columns, np.linalg.norm(a[rows] - b[columns], axis=1)


def _match(
    rows: IntArray, columns: IntArray, distances: FloatArray, n_rows: int, n_columns: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """The largest one-to-one matching along the links and, among the largest, that of least distance.

    Solved for each connected group of links, so that the cost matrices stay small.
    """
    chosen: list[tuple[int, int, float]] = []
    graph = coo_array((np.ones(len(rows)), (rows, n_rows + columns)), shape=(n_rows + n_columns,) * 2)
    label = connected_components(graph, directed=False)[1][rows] if len(rows) else rows
    order = np.argsort(label, kind="stable")
    bounds = np.flatnonzero(np.diff(label[order])) + 1
    for group in np.split(order, bounds) if len(order) else []:
        left, i = np.unique(rows[group], return_inverse=True)
        right, j = np.unique(columns[group], return_inverse=True)
        # One forbidden pair costs more than all allowed ones together, so pairs are never given up for
        # a smaller distance.
        forbidden = (distances[group].max() + 1.0) * (min(len(left), len(right)) + 1)
        cost = np.full((len(left), len(right)), forbidden)
        cost[i, j] = distances[group]
        for r, c in zip(*linear_sum_assignment(cost), strict=True):
            if cost[r, c] < forbidden:
                chosen.append((int(left[r]), int(right[c]), float(cost[r, c])))
    chosen.sort()
    return (
        np.array([c[0] for c in chosen], dtype=np.int64),
        np.array([c[1] for c in chosen], dtype=np.int64),
        np.array([c[2] for c in chosen], dtype=np.float64),
    )


def _pairs(
    tomogram: int, some: Candidates, true: Candidates, matched: tuple[IntArray, IntArray, FloatArray]
) -> list[Pair]:
    rows, columns, distances = matched
    a, b = some.normal_zyx[rows].astype(np.float64), true.normal_zyx[columns].astype(np.float64)
    # atan2 keeps its precision at small angles, where acos of a dot product loses it.
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.sum(a * b, axis=1)))
    return [
        Pair(tomogram, int(r), int(c), float(d), float(angle))
        for r, c, d, angle in zip(rows, columns, distances, angles, strict=True)
    ]


def _gains(score: npt.NDArray[Any], rows: IntArray, columns: IntArray, n_truth: int) -> FloatArray:
    """Which candidate, added in the order of score, makes the largest matching larger by one.

    Summed over the best k candidates this is the size of their own largest matching (augmenting paths:
    Kuhn 1955; a matched candidate never needs to be dropped when a worse one is added).
    """
    neighbours: list[list[int]] = [[] for _ in range(len(score))]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        neighbours[row].append(column)
    owner = [-1] * n_truth
    gain = np.zeros(len(score))
    for start in np.argsort(-score, kind="stable").tolist():
        gain[start] = _augment(start, neighbours, owner)
    return gain


def _augment(start: int, neighbours: list[list[int]], owner: list[int]) -> bool:
    """Breadth-first search for an augmenting path from a candidate; flips it if there is one."""
    came_from: dict[int, int] = {}
    queue = [start]
    for candidate in queue:
        for true in neighbours[candidate]:
            if true in came_from:
                continue
            came_from[true] = candidate
            if owner[true] >= 0:
                queue.append(owner[true])
                continue
            while True:  # walk back, giving each particle to the candidate that reached it
                giver = came_from[true]
                previous = next((t for t in neighbours[giver] if owner[t] == giver), -1)
                owner[true] = giver
                if giver == start:
                    return True
                true = previous
    return False


def _curve(
    scores: npt.NDArray[Any], gain: FloatArray, n_truth: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distinct scores, highest first, with precision and recall of the candidates at or above each."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    last_of_score = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else order
    hits = np.cumsum(gain[order])[last_of_score]
    recall = hits / n_truth if n_truth else np.ones(len(hits))
    return ordered[last_of_score], hits / (last_of_score + 1), recall


def _count_kinds(kinds: dict[str, int], false: Candidates, lookalikes: Candidates, tolerance: float) -> None:
    """Add the false positives of one tomogram to the counts by kind."""
    if len(false) == 0:
        return
    nearest = np.full(len(false), -1)
    if len(lookalikes):
        distance, index = KDTree(_angstrom(lookalikes)).query(_angstrom(false))
        nearest = np.where(distance <= tolerance, index, -1)
    for i in nearest.tolist():
        kind = str(lookalikes.kind[i]) if i >= 0 else "other"
        kinds[kind] = kinds.get(kind, 0) + 1
