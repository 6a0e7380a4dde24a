"""The three kinds of preselection, as they are stored in a classifier's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import InputError, ModelError
from t3ssfast.kernels.window_statistics import window_statistics

__all__ = [
    "CoarseScan",
    "PreselectModel",
    "PreselectRule",
    "Preselection",
    "read_preselection",
    "within_bounds",
]

BoolArray = npt.NDArray[np.bool_]
Stored = TypeVar("Stored", bound="StoredPreselection")


@dataclass(frozen=True)
class StoredPreselection:
    """Base of the preselections: conversion to and from plain values for JSON."""

    # Stored as the entry "kind"; None stores no such entry.
    KIND: ClassVar[str | None] = None
    # Types of the required entries: numbers, and lists of numbers or names.
    NUMBERS: ClassVar[Mapping[str, type]] = {}
    LISTS: ClassVar[Mapping[str, type]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for JSON."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values if self.KIND is None else {"kind": self.KIND, **values}

    @classmethod
    def from_dict(cls: type[Stored], entries: Mapping[str, Any]) -> Stored:
        """Read what `to_dict` returns; ModelError where an entry is missing, unknown or of the wrong type."""
        # Earlier versions called the metrics "figures".
        values = {"metrics" if k == "figures" else k: v for k, v in entries.items() if k != "kind"}
        try:
            values |= {name: convert(values[name]) for name, convert in cls.NUMBERS.items()}
            values |= {name: tuple(map(convert, values[name])) for name, convert in cls.LISTS.items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The {cls.__name__} in the model's metadata cannot be read ({error}); learn it again with "
                "preselect()."
            ) from error


@dataclass(frozen=True)
class PreselectRule(StoredPreselection):
    """Keep the windows whose statistics all lie within bounds.

    Parameters
    ----------
    size, statistics
        Side of the windows in pixels, and names known to `window_statistics`.
    low, high
        Inclusive bounds of each statistic, in units of the normalised grey values.
    margin
        By how many robust standard deviations of the positives the bounds were widened.
    positives, negatives, positives_kept, negatives_kept
        Numbers of windows that the rule was learned from, and fractions of them that are kept.
    """

    NUMBERS: ClassVar = {"size": int}
    LISTS: ClassVar = {"statistics": str, "low": float, "high": float}

    size: int
    statistics: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    margin: float = 0.0
    positives: int = 0
    negatives: int = 0
    positives_kept: float = 1.0
    negatives_kept: float | None = None

    def __post_init__(self) -> None:
        complete = len(self.statistics) == len(self.low) == len(self.high) >= 1
        if not (complete and all(a <= b for a, b in zip(self.low, self.high, strict=True))):
            raise InputError(
                f"A rule over {self.statistics} has the lower bounds {self.low} and the upper bounds "
                f"{self.high}; give one of each per statistic, the lower not above the upper."
            )

    def keeps(self, statistics: npt.NDArray[Any]) -> BoolArray:
        """Return which of n windows are kept, from their (S, n) statistics; a NaN is never within bounds."""
        return within_bounds(statistics, np.array(self.low), np.array(self.high))

    def apply(self, image: npt.NDArray[Any], mask: npt.NDArray[Any]) -> BoolArray:
        """Return a copy of a mask without the windows of a (..., H, W) image that are not kept.

        The mask is (..., H - size + 1, W - size + 1), indexed by the windows' top-left corners.
        """
        kept = np.array(mask, dtype=bool)
        if kept.any():
            statistics = window_statistics(image, self.size, self.statistics, mask=kept)
            kept[kept] = self.keeps(np.asarray(statistics))
        return kept


def within_bounds(statistics: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]) -> BoolArray:
    """Return which of n windows have all of their (S, n) statistics within inclusive bounds."""
    with np.errstate(invalid="ignore"):
        within = (statistics >= low[:, None]) & (statistics <= high[:, None])
    return np.asarray(within.all(axis=0))


@dataclass(frozen=True)
class PreselectModel(StoredPreselection):
    """Keep the windows of a block where a weighted sum of its features reaches a threshold.

    `BlockStatistics` explains sizes, statistics and features; `metrics` were measured on held-out tomograms.
    """

    KIND: ClassVar = "model"
    NUMBERS: ClassVar = {"threshold": float}
    LISTS: ClassVar = {"sizes": int, "statistics": str, "weight": float}

    sizes: tuple[int, ...]
    statistics: tuple[str, ...]
    weight: tuple[float, ...]
    threshold: float
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.weight) == len(self.sizes) * (len(self.statistics) + 1) > 0:
            raise InputError(
                f"A model over {len(self.sizes)} sizes and {len(self.statistics)} statistics has "
                f"{len(self.weight)} weights; give one for each statistic and the membrane at each size."
            )

    def keeps(self, features: npt.NDArray[Any]) -> BoolArray:
        """Return which of n windows are kept, from their (F, n) features; windows with a NaN are not."""
        total = np.array(self.weight) @ features.astype(np.float64)
        return np.asarray(np.isfinite(total) & (total >= self.threshold))


@dataclass(frozen=True)
class CoarseScan(StoredPreselection):
    """Keep a block of windows where a scanned window in it or in its 26 neighbours scores `level` or more.

    Strides are voxels of the model's grid between scanned windows. A particle spans about twenty slices, and
    scores are high within a few pixels of its centre, so a stride of a few voxels does not miss it.
    """

    KIND: ClassVar = "coarse_scan"
    NUMBERS: ClassVar = {"stride_z": int, "stride_yx": int, "level": float}

    stride_z: int = 4
    stride_yx: int = 4
    level: float = 0.1
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.stride_z, self.stride_yx) < 1 or not 0 <= self.level <= 1:
            raise InputError(
                f"A coarse scan has strides {self.stride_z} and {self.stride_yx} and level {self.level}; "
                "give strides of at least 1 and a level from 0 to 1."
            )


Preselection = PreselectRule | PreselectModel | CoarseScan
KINDS: dict[str, type[Preselection]] = {
    "rule": PreselectRule,
    "model": PreselectModel,
    "coarse_scan": CoarseScan,
    "look": CoarseScan,  # as earlier versions wrote it
}


def read_preselection(entries: Mapping[str, Any] | None) -> Preselection | None:
    """Read the preselection in a model's metadata; ModelError if it cannot be read, None without one."""
    if entries is None:
        return None
    kind = entries.get("kind", "rule")
    if kind not in KINDS:
        raise ModelError(f"The model's preselection is of the unknown kind {kind!r}; update t3ssfast.")
    return KINDS[kind].from_dict(entries)
