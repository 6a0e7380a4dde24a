"""The domain of a calibration: how unlike its tomograms another one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, ModelError

__all__ = ["CalibrationDomain", "StatisticsGroup"]

FloatArray = npt.NDArray[np.float64]

# Weight of the diagonal in the covariance, which a few dozen tomograms determine badly otherwise.
SHRINKAGE = 0.3
# Fraction of the calibration tomograms, each left out of the fit, that lie within the limit of a group.
INSIDE = 0.975
MIN_TOMOGRAMS = 8


@dataclass(frozen=True)
class StatisticsGroup:
    """Mean and inverse covariance of a few statistics, and the distance that bounds most tomograms."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    @classmethod
    def fit(cls, names: tuple[str, ...], values: FloatArray) -> StatisticsGroup:
        """Fit to the (n, k) values of n tomograms."""
        left_out = [
            _distance(row, *_mean_and_precision(np.delete(values, k, axis=0))) for k, row in enumerate(values)
        ]
        mean, precision = _mean_and_precision(values)
        rows = tuple(tuple(row) for row in precision.tolist())
        limit = max(float(np.quantile(left_out, INSIDE, method="higher")), 1e-6)
        return cls(names, tuple(mean.tolist()), rows, limit)

    def distance(self, statistics: Mapping[str, float]) -> float | None:
        """Return the Mahalanobis distance in units of the limit; None if a statistic is missing."""
        values = np.array([statistics.get(name, np.nan) for name in self.names], np.float64)
        if not np.isfinite(values).all():
            return None
        return _distance(values, np.asarray(self.mean), np.asarray(self.precision)) / self.limit


@dataclass(frozen=True)
class CalibrationDomain:
    """The statistics of the calibration tomograms, in groups; a name's group is its first word.

    A tomogram is as far away as its farthest group. Within a distance of 1 it is like those of the
    calibration.
    """

    groups: tuple[StatisticsGroup, ...]
    tomograms: int = 0

    @classmethod
    def fit(cls, statistics: Sequence[Mapping[str, float]]) -> CalibrationDomain | None:
        """Fit to the statistics of tomograms; None if they are too few.

        Raises InputError if a statistic is not finite.
        """
        if len(statistics) < MIN_TOMOGRAMS:
            return None
        names = sorted(set.intersection(*(set(one) for one in statistics)))
        groups = []
        for prefix in sorted({name.split("_")[0] for name in names}):
            own = tuple(name for name in names if name.split("_")[0] == prefix)
            values = np.array([[one[name] for name in own] for one in statistics], np.float64)
            if not np.isfinite(values).all():
                raise InputError(
                    "A statistic of a calibration tomogram is not finite; leave this tomogram out."
                )
            groups.append(StatisticsGroup.fit(own, values))
        return cls(tuple(groups), len(statistics))

    def distance(self, statistics: Mapping[str, float]) -> float | None:
        """Return the distance of the farthest group; None if no group is complete."""
        distances = [group.distance(statistics) for group in self.groups]
        return max((d for d in distances if d is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and numbers, for JSON."""
        groups = [asdict(group) for group in self.groups]
        for group in groups:
            group["precision"] = [list(row) for row in group["precision"]]
            group |= {"names": list(group["names"]), "mean": list(group["mean"])}
        return {"groups": groups, "tomograms": self.tomograms}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> CalibrationDomain:
        """Invert `to_dict`, or raise ModelError."""
        try:
            groups = tuple(_group_of(group) for group in entries["groups"])
            return cls(groups, int(entries.get("tomograms", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The domain of the calibration cannot be read ({error}); calibrate the model again."
            ) from error


def _group_of(entries: Mapping[str, Any]) -> StatisticsGroup:
    names = tuple(str(name) for name in entries["names"])
    mean = tuple(float(value) for value in entries["mean"])
    precision = tuple(tuple(float(v) for v in row) for row in entries["precision"])
    limit = float(entries["limit"])
    if np.shape(precision) != (len(names), len(names)) or len(mean) != len(names) or not limit > 0:
        raise ValueError("numbers of statistics differ, or a limit is not above 0")
    return StatisticsGroup(names, mean, precision, limit)


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
