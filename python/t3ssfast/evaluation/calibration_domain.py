"""The domain of a calibration: how unlike its tomograms another one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, ModelError

__all__ = ["CalibrationDomain"]

FloatArray = npt.NDArray[np.float64]

# Weight of the diagonal in the covariance, which a few dozen tomograms determine badly otherwise.
SHRINKAGE = 0.3
# Fraction of the calibration tomograms, each left out of the fit, that lie within the limit.
INSIDE = 0.97
MIN_TOMOGRAMS = 8


@dataclass(frozen=True)
class CalibrationDomain:
    """Mean and spread of the statistics of the calibration tomograms, and the distance that bounds them.

    Parameters
    ----------
    names
        Names of the k statistics.
    mean, precision
        (k,) mean, and (k, k) inverse covariance, as tuples.
    limit
        Distance that all but a few percent of such tomograms are within.
    tomograms
        Number of tomograms that it was fitted to.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float
    tomograms: int = 0

    @classmethod
    def fit(cls, statistics: Sequence[Mapping[str, float]]) -> CalibrationDomain | None:
        """Fit to the statistics of tomograms; None if they are too few."""
        if len(statistics) < MIN_TOMOGRAMS:
            return None
        names = tuple(sorted(set.intersection(*(set(one) for one in statistics))))
        values = np.array([[one[name] for name in names] for one in statistics], np.float64)
        if not np.isfinite(values).all():
            raise InputError("A statistic of a calibration tomogram is not finite; leave this tomogram out.")
        left_out = [
            _distance(values[k], *_mean_and_precision(np.delete(values, k, axis=0)))
            for k in range(len(values))
        ]
        mean, precision = _mean_and_precision(values)
        rows = tuple(tuple(row) for row in precision.tolist())
        limit = float(np.quantile(left_out, INSIDE, method="higher"))
        return cls(names, tuple(mean.tolist()), rows, limit, len(values))

    def distance(self, statistics: Mapping[str, float]) -> float | None:
        """Return the Mahalanobis distance per statistic; None if one is missing or not finite."""
        values = np.array([statistics.get(name, np.nan) for name in self.names], np.float64)
        if not np.isfinite(values).all():
            return None
        return _distance(values, np.asarray(self.mean), np.asarray(self.precision))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and numbers, for JSON."""
        plain = asdict(self)
        plain["precision"] = [list(row) for row in self.precision]
        return plain | {"names": list(self.names), "mean": list(self.mean)}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> CalibrationDomain:
        """Invert `to_dict`, or raise ModelError."""
        try:
            names = tuple(str(name) for name in entries["names"])
            mean = tuple(float(value) for value in entries["mean"])
            precision = tuple(tuple(float(v) for v in row) for row in entries["precision"])
            if np.shape(precision) != (len(names), len(names)) or len(mean) != len(names):
                raise ValueError("numbers of statistics differ")
            return cls(names, mean, precision, float(entries["limit"]), int(entries.get("tomograms", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The domain of the calibration cannot be read ({error}); calibrate the model again."
            ) from error


def _mean_and_precision(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and inverse covariance of (n, k) values, shrunken towards independent statistics."""
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    spread = np.maximum(np.diag(covariance), 1e-8)
    shrunken = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(spread) + 1e-8 * np.eye(len(spread))
    return np.asarray(values.mean(axis=0)), np.asarray(np.linalg.inv(shrunken), np.float64)


def _distance(values: FloatArray, mean: FloatArray, precision: FloatArray) -> float:
    difference = values - mean
    squared = float(difference @ precision @ difference)
    return float(np.sqrt(max(squared, 0.0) / len(difference)))
