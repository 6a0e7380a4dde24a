"""One-to-one matching of candidates and particles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

__all__ = ["Pair", "TomogramMatches", "hits_by_score", "match", "pairs_within"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A candidate and the particle that it matches, by their indices among those of their tomogram.

    The normals differ by 0 to 180 degrees; above 90 the polarity is wrong.
    """

    tomogram: int
    candidate: int
    truth: int
    distance_angstrom: float
    normal_error_degrees: float


@dataclass(frozen=True, eq=False)
class TomogramMatches:
    """Matches of candidates and particles in one tomogram.

    `scores` and `hits` are (n,), the latter from `hits_by_score`. `pairs` has one entry per true positive,
    from the matching with the least total distance. False positives are counted per kind of look-alike.
    """

    name: str
    scores: FloatArray
    hits: FloatArray
    n_truth: int
    pairs: tuple[Pair, ...]
    false_positive_kinds: dict[str, int] = field(default_factory=dict)


def pairs_within(a: FloatArray, b: FloatArray, tolerance: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Return all pairs within a distance: indices into `a` and `b`, sorted, and distances."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    neighbours = KDTree(a).query_ball_tree(KDTree(b), tolerance)
    rows = np.repeat(np.arange(len(a)), [len(n) for n in neighbours])
    columns = np.array([j for n in neighbours for j in sorted(n)], dtype=np.int64)
    return rows, columns, np.linalg.norm(a[rows] - b[columns], axis=1)


def match(rows: IntArray, columns: IntArray, distances: FloatArray) -> IntArray:
    """Choose the largest one-to-one matching and, among those, the one with the least total distance.

    Takes pairs as `pairs_within` returns them; returns the indices of the chosen pairs, ascending.
    """
    if not len(rows):
        return rows
    n_rows, n_columns = rows.max() + 1, columns.max() + 1
    graph = coo_array((np.ones(len(rows)), (rows, n_rows + columns)), shape=(n_rows + n_columns,) * 2)
    label = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(label, kind="stable")
    chosen: list[IntArray] = []
    # Solving each connected component by itself keeps the cost matrices small.
    for component in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        left, i = np.unique(rows[component], return_inverse=True)
        right, j = np.unique(columns[component], return_inverse=True)
        # A forbidden pair costs more than all allowed ones together, so a smaller total distance never
        # outweighs a pair.
        forbidden = (distances[component].max() + 1.0) * (min(len(left), len(right)) + 1)
        cost = np.full((len(left), len(right)), forbidden)
        cost[i, j] = distances[component]
        pair = np.full(cost.shape, -1)
        pair[i, j] = component
        assigned = pair[scipy.optimize.linear_sum_assignment(cost)]
        chosen.append(assigned[assigned >= 0])
    return np.sort(np.concatenate(chosen))


def hits_by_score(
    score: npt.NDArray[np.floating], rows: IntArray, columns: IntArray, n_truth: int
) -> FloatArray:
    """Return 1 for each candidate that enlarges the matching when they are added from high to low score.

    The number of hits among the best k candidates is the size of their largest matching (augmenting paths,
    Kuhn 1955), so of two candidates on one particle the one with the higher score is the hit.
    """
    neighbours: list[list[int]] = [[] for _ in range(len(score))]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        neighbours[row].append(column)
    owner = [-1] * n_truth
    hits = np.zeros(len(score))
    for candidate in np.argsort(-score, kind="stable").tolist():
        hits[candidate] = _augment(candidate, neighbours, owner)
    return hits


def _augment(start: int, neighbours: list[list[int]], owner: list[int]) -> bool:
    """Search breadth-first for an augmenting path from a candidate, and apply it to `owner`."""
    reached_from: dict[int, int] = {}
    queue = [start]
    for candidate in queue:
        for particle in neighbours[candidate]:
            if particle in reached_from:
                continue
            reached_from[particle] = candidate
            if owner[particle] >= 0:
                queue.append(owner[particle])
                continue
            while True:  # walk back and assign each particle to the candidate that reached it
                new_owner = reached_from[particle]
                previous = next((p for p in neighbours[new_owner] if owner[p] == new_owner), -1)
                owner[particle] = new_owner
                if new_owner == start:
                    return True
                particle = previous
    return False
