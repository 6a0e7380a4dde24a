"""Metrics of the trainings, and the tables and figures of them, written atomically."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from t3ssfast.io import atomic_path
from t3ssfast.runtime.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_file", "overlap_metrics", "score_metrics", "write_table"]


def score_metrics(score: npt.NDArray[np.float32], true: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return average precision, and precision and recall at a score of 0.5, from (n,) scores and labels.

    Average precision is the mean precision at every true example, ranked by score.
    """
    ranked = true[np.argsort(-score, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    hits = float((score[true] > 0.5).sum())
    return {
        "average_precision": float(precision[ranked].mean()) if ranked.any() else 0.0,
        "precision": hits / max(1.0, float((score > 0.5).sum())),
        "recall": hits / max(1.0, float(true.sum())),
    }


def overlap_metrics(hits: int, found: int, true: int) -> dict[str, float]:
    """Return Dice, precision and recall from numbers of voxels: both found and true, found, true."""
    return {
        "dice": 2 * hits / max(1, found + true),
        "precision": hits / max(1, found),
        "recall": hits / max(1, true),
    }


def write_table(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write rows of numbers with the same keys as CSV."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)


@contextmanager
def figure_file(path: Path, size: tuple[float, float], dpi: int) -> Iterator[Figure]:
    """Yield a figure of a size in inches, and write it as PNG."""
    figure = new_figure(*size, dpi)
    yield figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
