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
MIN_TOMOGRAMS = 8
# The sign of the change of each of these statistics where models are less certain than in the calibration. A
# group of such statistics is compared in this direction alone: more certain models are no reason to warn.
LESS_CERTAIN = {
    "confidence_membrane_doubt": 1.0,
    "confidence_between": 1.0,
    "confidence_upper_log_odds": -1.0,
}
# The scores of a few candidates tell little, so this statistic is compared by itself, too.
MEMBRANE_DOUBT = "confidence_membrane_doubt"
# A normal distribution exceeds this many standard deviations in 2.5% of cases. With two comparisons, at most
# 5% of the calibration's tomograms are beyond the limit.
LESS_CERTAIN_LIMIT = 1.96


@dataclass(frozen=True)
class StatisticsGroup:
    """Mean and inverse covariance of a few statistics, and the distance that bounds those of the calibration.

    The distance is Mahalanobis's. For statistics that are all in `LESS_CERTAIN` it is the larger of two
    numbers of standard deviations, in the direction of less certain models: that of the sum of the
    statistics, each in units of its own, and that of the doubt about the membrane.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    @classmethod
    def fit(cls, names: tuple[str, ...], values: FloatArray) -> StatisticsGroup:
        """Fit to the (n, k) values of n tomograms."""
        mean, precision = _mean_and_precision(values)
        rows = tuple(tuple(row) for row in precision.tolist())
        if _is_one_sided(names):
            return cls(names, tuple(mean.tolist()), rows, LESS_CERTAIN_LIMIT)
        left_out = [
            _distance(row, *_mean_and_precision(np.delete(values, k, axis=0))) for k, row in enumerate(values)
        ]
        # Of n + 1 tomograms that are alike, each is as likely as any other to be the farthest one: a new one
        # is beyond this limit in about one of n + 1 cases.
        return cls(names, tuple(mean.tolist()), rows, max(*left_out, 1e-6))

    def distance(self, statistics: Mapping[str, float]) -> float | None:
        """Return the distance in units of the limit; None if a statistic is missing."""
        values = np.array([statistics.get(name, np.nan) for name in self.names], np.float64)
        if not np.isfinite(values).all():
            return None
        mean, precision = np.asarray(self.mean), np.asarray(self.precision)
        if not _is_one_sided(self.names):
            return _distance(values, mean, precision) / self.limit
        # Files of earlier versions hold the limit of a Mahalanobis distance here.
        return max(0.0, _less_certain(self.names, values - mean, precision)) / LESS_CERTAIN_LIMIT


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
        return max(self.distances(statistics).values(), default=None)

    def distances(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """Return the distance of each complete group, by the first word of its names."""
        found = {group.names[0].split("_")[0]: group.distance(statistics) for group in self.groups}
        return {name: distance for name, distance in found.items() if distance is not None}

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


def _is_one_sided(names: tuple[str, ...]) -> bool:
    return all(name in LESS_CERTAIN for name in names)


def _less_certain(names: tuple[str, ...], difference: FloatArray, precision: FloatArray) -> float:
    """Return the larger number of standard deviations towards less certain models."""
    covariance = np.linalg.inv(precision)
    scaled = np.array([LESS_CERTAIN[name] for name in names]) / np.sqrt(np.diag(covariance))
    deviations = [float(scaled @ difference / np.sqrt(scaled @ covariance @ scaled))]
    deviations += [float(scaled[k] * difference[k]) for k, name in enumerate(names) if name == MEMBRANE_DOUBT]
    return max(deviations)
