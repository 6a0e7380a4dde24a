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
# The direction in which each of these statistics tells that models are less sure than in the calibration. A
# group of such statistics is compared in this direction alone: to be surer than usual is no reason to warn.
LESS_SURE = {
    "confidence_membrane_doubt": 1.0,
    "confidence_between": 1.0,
    "confidence_upper_log_odds": -1.0,
}
# Where there are few candidates their scores tell little, so this one is also looked at by itself.
MEMBRANE_DOUBT = "confidence_membrane_doubt"
# Standard deviations that 2.5% of a normal distribution exceed; of two looks, one in twenty does.
LESS_SURE_LIMIT = 1.96


@dataclass(frozen=True)
class StatisticsGroup:
    """Mean and inverse covariance of a few statistics, and the distance that bounds most tomograms.

    The distance is Mahalanobis's, or for statistics that are all in `LESS_SURE` the number of standard
    deviations by which their sum, each in units of its own, or the membrane's doubt is less sure than the
    mean.
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
            return cls(names, tuple(mean.tolist()), rows, LESS_SURE_LIMIT)
        left_out = [
            _distance(row, *_mean_and_precision(np.delete(values, k, axis=0))) for k, row in enumerate(values)
        ]
        limit = max(float(np.quantile(left_out, INSIDE, method="higher")), 1e-6)
        return cls(names, tuple(mean.tolist()), rows, limit)

    def distance(self, statistics: Mapping[str, float]) -> float | None:
        """Return the distance in units of the limit; None if a statistic is missing."""
        values = np.array([statistics.get(name, np.nan) for name in self.names], np.float64)
        if not np.isfinite(values).all():
            return None
        mean, precision = np.asarray(self.mean), np.asarray(self.precision)
        if not _is_one_sided(self.names):
            return _distance(values, mean, precision) / self.limit
        # Files of earlier versions hold the limit of a Mahalanobis distance here.
        return max(0.0, _less_sure(self.names, values - mean, precision)) / LESS_SURE_LIMIT


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
    return all(name in LESS_SURE for name in names)


def _less_sure(names: tuple[str, ...], difference: FloatArray, precision: FloatArray) -> float:
    """Return how many standard deviations a difference from the mean is in the direction of less sure."""
    covariance = np.linalg.inv(precision)
    scaled = np.array([LESS_SURE[name] for name in names]) / np.sqrt(np.diag(covariance))
    looks = [float(scaled @ difference / np.sqrt(scaled @ covariance @ scaled))]
    looks += [float(scaled[k] * difference[k]) for k, name in enumerate(names) if name == MEMBRANE_DOUBT]
    return max(looks)
