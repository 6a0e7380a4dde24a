"""Counts true and false positives, tomogram by tomogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.evaluation import Evaluation
from t3ssfast.evaluation.matching import gains, links, match
from t3ssfast.evaluation.tally import Pair, Tally

__all__ = ["evaluate"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def evaluate(
    candidates: Candidates | Sequence[Candidates],
    truth: Candidates | Sequence[Candidates],
    tolerance_angstrom: float = 120.0,
    *,
    distractors: Candidates | Sequence[Candidates] | None = None,
) -> Evaluation:
    """Count true and false positives of candidates against truth.

    Candidates and truth of one tomogram are matched one to one within the tolerance: as many pairs as
    possible and, of those matchings, the one of least summed distance. Several tomograms are pooled.

    Parameters
    ----------
    candidates, truth
        Of one tomogram, or sequences of equal length with one entry for each tomogram. Their voxel sizes
        may differ; centres are compared as voxel coordinate times voxel size.
    tolerance_angstrom
        Largest distance between the centres of a pair.
    distractors
        Known look-alikes, in the same manner; a false positive within the tolerance of one (the nearest)
        is counted under its kind.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError, ConfigError
        If the sequences differ in length or the tolerance is not a positive number.
    """
    if not (np.isfinite(tolerance_angstrom) and tolerance_angstrom > 0):
        raise ConfigError(f"tolerance_angstrom is {tolerance_angstrom!r}; give a length above 0.")
    found, known = _as_list(candidates), _as_list(truth)
    lookalikes = None if distractors is None else _as_list(distractors)
    if len(found) != len(known) or (lookalikes is not None and len(lookalikes) != len(found)):
        raise InputError(
            f"Candidates of {len(found)} tomograms and truth of {len(known)} were given; give one of each "
            "(and of the distractors, if any) for every tomogram."
        )
    tallies = []
    for index, (some, true) in enumerate(zip(found, known, strict=True)):
        near = links(_angstrom(some), _angstrom(true), tolerance_angstrom)
        matched = match(*near, len(some), len(true))
        kinds: dict[str, int] = {}
        if lookalikes is not None:
            missed = np.setdiff1d(np.arange(len(some)), matched[0])
            kinds = _count_kinds(some[missed], lookalikes[index], tolerance_angstrom)
        tallies.append(
            Tally(
                name=true.tomogram_name if len(true) or not len(some) else some.tomogram_name,
                scores=some.score.astype(np.float64),
                hits=gains(some.score, near[0], near[1], len(true)),
                n_truth=len(true),
                pairs=tuple(_pairs(index, some, true, matched)),
                false_positive_kinds=kinds,
            )
        )
    return Evaluation(float(tolerance_angstrom), tuple(tallies))


def _as_list(value: Candidates | Sequence[Candidates]) -> list[Candidates]:
    return [value] if isinstance(value, Candidates) else list(value)


def _angstrom(candidates: Candidates) -> FloatArray:
    return candidates.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom


def _pairs(
    tomogram: int, some: Candidates, true: Candidates, matched: tuple[IntArray, IntArray, FloatArray]
) -> list[Pair]:
    rows, columns, distances = matched
    a, b = some.normal_zyx[rows].astype(np.float64), true.normal_zyx[columns].astype(np.float64)
    # atan2 keeps its precision at small angles, where acos of a dot product loses it.
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.sum(a * b, axis=1)))
    return [
        Pair(tomogram, int(r), int(c), float(d), float(angle))
        for r, c, d, angle in zip(rows, columns, distances, angles, strict=True)
    ]


def _count_kinds(false: Candidates, lookalikes: Candidates, tolerance: float) -> dict[str, int]:
    """False positives of one tomogram by kind."""
    kinds: dict[str, int] = {}
    nearest = np.full(len(false), -1)
    if len(lookalikes) and len(false):
        distance, index = KDTree(_angstrom(lookalikes)).query(_angstrom(false))
        nearest = np.where(distance <= tolerance, index, -1)
    for i in nearest.tolist():
        kind = str(lookalikes.kind[i]) if i >= 0 else "other"
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds
