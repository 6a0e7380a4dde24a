"""Matching one to one: as many pairs as possible, as near as possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

__all__ = ["gains", "links", "match"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def links(a: FloatArray, b: FloatArray, tolerance: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Every (a, b) within the tolerance: indices and distances, in order of a, then b."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    near = KDTree(a).query_ball_tree(KDTree(b), tolerance)
    rows = np.repeat(np.arange(len(a)), [len(n) for n in near])
    columns = np.array([j for n in near for j in sorted(n)], dtype=np.int64)
    return rows, columns, np.linalg.norm(a[rows] - b[columns], axis=1)


def match(
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


def gains(score: npt.NDArray[Any], rows: IntArray, columns: IntArray, n_truth: int) -> FloatArray:
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
