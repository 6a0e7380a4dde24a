"""Preselection by a regularised logistic regression over the statistics of windows of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.preselect.rule import DEFAULT_STATISTICS
from t3ssfast.detection.preselect.stored import StoredPreselection, tuple_of
from t3ssfast.errors import InputError, T3Error

__all__ = ["DEFAULT_SIZES", "PreselectModel", "count_features", "learn_model"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

# In blocks of two voxels: from the classifier's window of 50 px down to the base alone.
DEFAULT_SIZES = (25, 18, 12, 6)
# Values of scikit-learn's C (small is strong) that are compared.
REGULARISATION = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 6
MAX_ITERATIONS = 500


@dataclass(frozen=True)
class PreselectModel(StoredPreselection):
    """Keep the windows of a block where a weighted sum of the block's statistics reaches a threshold.

    Parameters
    ----------
    sizes
        Sides of the windows around the block, in blocks (see `BlockStatistics`).
    statistics
        Names known to `window_statistics`, the same at every size.
    weight
        Of each feature: sizes x statistics, statistics fastest, then the membrane fraction at each size.
    threshold
        Minimum sum.
    metrics
        Measurements on held-out tomograms.
    """

    KIND: ClassVar = "model"
    REQUIRED: ClassVar = {
        "sizes": tuple_of(int),
        "statistics": tuple_of(str),
        "weight": tuple_of(float),
        "threshold": float,
    }

    sizes: tuple[int, ...]
    statistics: tuple[str, ...]
    weight: tuple[float, ...]
    threshold: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features = count_features(self.sizes, self.statistics)
        if features == 0 or len(self.weight) != features:
            raise InputError(
                f"A model over {len(self.sizes)} sizes and {len(self.statistics)} statistics has "
                f"{len(self.weight)} weights; give one for each statistic and the membrane at each size."
            )

    def keeps(self, features: npt.NDArray[Any]) -> BoolArray:
        """Return which of n windows are kept, from their (F, n) features; windows with a NaN are not."""
        total: FloatArray = np.array(self.weight) @ features.astype(np.float64)
        return np.asarray(np.isfinite(total) & (total >= self.threshold))


def count_features(sizes: Sequence[int], statistics: Sequence[str]) -> int:
    """Return the number of features: every statistic and the membrane fraction, at every size."""
    return len(sizes) * (len(statistics) + 1)


def learn_model(
    features: npt.ArrayLike,
    true: npt.ArrayLike,
    tomogram: npt.ArrayLike,
    *,
    sizes: Sequence[int] = DEFAULT_SIZES,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    keep: float = 0.99,
) -> PreselectModel:
    """Learn from windows of several tomograms which of them to keep.

    Regularisation and threshold are chosen by cross-validation over tomograms: those that keep the fewest
    other windows along with `keep` of the windows on particles.

    Parameters
    ----------
    features
        (F, n) as returned by `BlockStatistics.features`.
    true
        (n,) whether a window is on a particle.
    tomogram
        (n,) index of the tomogram of each window.
    sizes, statistics
        What the features describe.
    keep
        Fraction of the windows on particles to keep.

    Raises
    ------
    InputError
        The shapes do not match, or fewer than two tomograms have windows of both classes.
    T3Error
        scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise T3Error(
            "Learning a preselection model needs scikit-learn; install it with pip install 't3ssfast[train]'."
        ) from error
    x, y, group = np.asarray(features, np.float64), np.asarray(true, bool), np.asarray(tomogram)
    expected = (count_features(sizes, statistics), len(y))
    if x.shape != expected or len(group) != len(y):
        raise InputError(
            f"The features have shape {x.shape}, with {len(y)} answers and {len(group)} tomograms; for these "
            f"sizes and statistics give (features, windows) = {expected}."
        )
    if not 0 < keep < 1:
        raise InputError(f"keep is {keep}; give a fraction between 0 and 1, such as 0.99.")
    finite = np.isfinite(x).all(axis=0)
    columns, y, group = x[:, finite].T, y[finite], group[finite]
    both = np.intersect1d(group[y], group[~y])
    if len(both) < 2:
        raise InputError(
            f"{len(both)} tomograms have windows with and without particles; give at least two such."
        )
    weight = _balanced_weights(y, group)

    def fit(chosen: BoolArray, strength: float) -> FloatArray:
        regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
        regression.fit(columns[chosen], y[chosen], sample_weight=weight[chosen])
        coefficients: FloatArray = regression.coef_[0]
        return coefficients

    _, number = np.unique(group, return_inverse=True)
    fold = number % min(FOLDS, number.max() + 1)
    results = []
    for strength in REGULARISATION:
        held_out = np.zeros(len(y))
        for k in range(fold.max() + 1):
            inside = fold == k
            # Nothing can be learned where the other folds hold only one class.
            if len(set(y[~inside])) == 2:
                held_out[inside] = columns[inside] @ fit(~inside, strength)
        threshold = float(np.quantile(held_out[y], 1 - keep, method="lower"))
        kept = float(np.average(held_out[~y] >= threshold, weights=weight[~y]))
        results.append((kept, threshold, strength))
    kept, threshold, strength = min(results)
    return PreselectModel(
        sizes=tuple(sizes),
        statistics=tuple(statistics),
        weight=tuple(fit(np.ones(len(y), bool), strength).tolist()),
        threshold=threshold,
        metrics={
            "tomograms": int(number.max() + 1),
            "positives": int(y.sum()),
            "negatives": int((~y).sum()),
            "positives_kept": keep,
            "negatives_kept": kept,
            "strength": strength,
        },
    )


def _balanced_weights(y: BoolArray, group: npt.NDArray[Any]) -> FloatArray:
    """Return weights with which both classes count the same, and every tomogram within a class."""
    weight = np.zeros(len(y))
    for positive in (True, False):
        tomograms = np.unique(group[y == positive])
        for tomogram in tomograms:
            chosen = (y == positive) & (group == tomogram)
            weight[chosen] = 1 / (chosen.sum() * len(tomograms))
    return np.asarray(weight * (len(y) / weight.sum()))
