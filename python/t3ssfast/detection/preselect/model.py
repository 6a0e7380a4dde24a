"""The learned way: a regularised logistic regression over the statistics of windows of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.preselect.rule import DEFAULT_STATISTICS
from t3ssfast.errors import InputError, ModelError, T3Error

__all__ = ["DEFAULT_SIZES", "PreselectModel", "learn_model"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

# Blocks of two voxels: the classifier's window of 50 px, and down to the base alone.
DEFAULT_SIZES = (25, 18, 12, 6)
# Strengths of the regularisation that are tried (scikit-learn's C: small is strong).
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 6
MAX_ITERATIONS = 500


@dataclass(frozen=True)
class PreselectModel:
    """The windows of a block pass when a weighted sum of the block's statistics reaches a threshold.

    Parameters
    ----------
    sizes
        Edges of the windows about the same centre, in blocks (see `BlockStatistics`).
    statistics
        Names as `window_statistics` knows them, the same at every size.
    weight
        Of each feature: sizes x statistics, statistics fastest, then the share of membrane at each size.
    threshold
        Sums at or above it pass.
    figures
        How it did on tomograms left out.
    """

    sizes: tuple[int, ...]
    statistics: tuple[str, ...]
    weight: tuple[float, ...]
    threshold: float
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features = count_features(self.sizes, self.statistics)
        if features == 0 or len(self.weight) != features:
            raise InputError(
                f"A model over {len(self.sizes)} sizes and {len(self.statistics)} statistics has "
                f"{len(self.weight)} weights; give one for each statistic and the membrane at each size."
            )

    def score(self, features: npt.NDArray[Any]) -> FloatArray:
        """Log-odds of (F, n) features, up to a constant; -inf for windows with a NaN (constant ones)."""
        total: FloatArray = np.array(self.weight) @ features.astype(np.float64)
        return np.where(np.isfinite(total), total, -np.inf)

    def keeps(self, features: npt.NDArray[Any]) -> BoolArray:
        """Which of n windows pass, from their (F, n) features."""
        return np.asarray(self.score(features) >= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"kind": "model", **plain}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> PreselectModel:
        """Inverse of `to_dict`.

        Raises
        ------
        ModelError
            If an entry is missing, unknown or of the wrong kind.
        """
        try:
            values = {k: v for k, v in entries.items() if k != "kind"}
            values["sizes"] = tuple(int(n) for n in values["sizes"])
            values["statistics"] = tuple(str(name) for name in values["statistics"])
            values["weight"] = tuple(float(x) for x in values["weight"])
            values["threshold"] = float(values["threshold"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ModelError(
                f"A preselection model cannot be read ({error}); learn it again with preselect()."
            ) from error


def count_features(sizes: Sequence[int], statistics: Sequence[str]) -> int:
    """Every statistic, and the share of membrane, at every size."""
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
    """Learn from windows of several tomograms which are worth the classifier.

    The strength of the regularisation is the one at which, of tomograms left out, the fewest other windows
    are kept along with `keep` of the particles'; the threshold is the one that did so.

    Parameters
    ----------
    features
        (F, n) as `BlockStatistics.features` gives them.
    true
        (n,) whether a window is about a particle.
    tomogram
        (n,) which tomogram it is of.
    sizes, statistics
        What the features are.
    keep
        Share of the particles' windows that must pass.

    Raises
    ------
    InputError
        If the shapes do not fit, or fewer than two tomograms have both kinds of windows.
    T3Error
        If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise T3Error(
            "Learning a preselection model needs scikit-learn; install it with pip install 't3ssfast[train]'."
        ) from error
    x, y = np.asarray(features, np.float64), np.asarray(true, bool)
    group = np.asarray(tomogram)
    expected = (count_features(sizes, statistics), len(y))
    if x.shape != expected or len(group) != len(y):
        raise InputError(
            f"The features have shape {x.shape}, with {len(y)} answers and {len(group)} tomograms; for these "
            f"sizes and statistics give (features, windows) = {expected}."
        )
    if not 0 < keep < 1:
        raise InputError(f"keep is {keep}; give a share between 0 and 1, such as 0.99.")
    finite = np.isfinite(x).all(axis=0)
    x, y, group = x[:, finite], y[finite], group[finite]
    both = np.intersect1d(group[y], group[~y])
    if len(both) < 2:
        raise InputError(
            f"{len(both)} tomograms have windows with and without particles; give at least two such."
        )
    columns = x.T
    # Both kinds weigh the same, and so does every tomogram within a kind.
    weight = np.zeros(len(y))
    for kind in (True, False):
        for one in np.unique(group[y == kind]):
            here = (y == kind) & (group == one)
            weight[here] = 1 / (here.sum() * len(np.unique(group[y == kind])))
    weight *= len(y) / weight.sum()

    def fitted(chosen: BoolArray, strength: float) -> FloatArray:
        regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
        regression.fit(columns[chosen], y[chosen], sample_weight=weight[chosen])
        coefficients: FloatArray = regression.coef_[0]
        return coefficients

    _, number = np.unique(group, return_inverse=True)
    fold = number % min(FOLDS, number.max() + 1)
    best = (np.inf, 0.0, STRENGTHS[0])
    for strength in STRENGTHS:
        left_out = np.empty(len(y))
        for k in range(fold.max() + 1):
            there = fold == k
            # A fold that leaves one kind only cannot be learned from; the others judge it by nothing.
            left_out[there] = columns[there] @ fitted(~there, strength) if len(set(y[~there])) == 2 else 0.0
        threshold = float(np.quantile(left_out[y], 1 - keep, method="lower"))
        kept = float(np.average(left_out[~y] >= threshold, weights=weight[~y]))
        best = min(best, (kept, threshold, strength))
    kept, threshold, strength = best
    coefficients = fitted(np.ones(len(y), bool), strength)
    return PreselectModel(
        sizes=tuple(sizes),
        statistics=tuple(statistics),
        weight=tuple(coefficients.tolist()),
        threshold=threshold,
        figures={
            "tomograms": int(number.max() + 1),
            "positives": int(y.sum()),
            "negatives": int((~y).sum()),
            "positives_kept": keep,
            "negatives_kept": kept,
            "strength": strength,
        },
    )
