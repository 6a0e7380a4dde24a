"""Counting of true and false positives, tomogram by tomogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.matching import Pair, TomogramMatches, hits_by_score, match, pairs_within
from t3ssfast.evaluation.result import Evaluation

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
    """Count true and false positives of candidates against known particles.

    Candidates and particles of a tomogram are matched one to one: as many pairs as possible within the
    tolerance and, among those matchings, the one with the least total distance. Tomograms are pooled.

    Parameters
    ----------
    candidates, truth
        One `Candidates` per tomogram, as a single object or as sequences of equal length. Voxel sizes may
        differ: positions are compared as voxel coordinate times voxel size.
    tolerance_angstrom
        Largest distance between the centres of a pair.
    distractors
        Known look-alikes, in the same form. A false positive within the tolerance of one is counted under the
        kind of the nearest.

    Raises
    ------
    InputError, ConfigError
        The sequences differ in length, or the tolerance is not a positive number.
    """
    if not (np.isfinite(tolerance_angstrom) and tolerance_angstrom > 0):
        raise ConfigError(f"tolerance_angstrom is {tolerance_angstrom!r}; give a length above 0.")
    found, known = _as_list(candidates), _as_list(truth)
    lookalikes = None if distractors is None else _as_list(distractors)
    if len(found) != len(known) or (lookalikes is not None and len(lookalikes) != len(found)):
        raise InputError(
            f"Candidates of {len(found)} tomograms and truth of {len(known)} were given; give both (and the "
            "distractors, if any) for every tomogram."
        )
    matches = []
    for index, (some, true) in enumerate(zip(found, known, strict=True)):
        rows, columns, distances = pairs_within(_angstrom(some), _angstrom(true), tolerance_angstrom)
        chosen = match(rows, columns, distances)
        pairs = _pairs(index, some, true, rows[chosen], columns[chosen], distances[chosen])
        kinds: dict[str, int] = {}
        if lookalikes is not None:
            unmatched = np.setdiff1d(np.arange(len(some)), [pair.candidate for pair in pairs])
            kinds = _count_kinds(some[unmatched], lookalikes[index], tolerance_angstrom)
        matches.append(
            TomogramMatches(
                name=true.tomogram_name if len(true) or not len(some) else some.tomogram_name,
                scores=some.score.astype(np.float64),
                hits=hits_by_score(some.score, rows, columns, len(true)),
                n_truth=len(true),
                pairs=pairs,
                false_positive_kinds=kinds,
            )
        )
    return Evaluation(float(tolerance_angstrom), tuple(matches))


def _as_list(value: Candidates | Sequence[Candidates]) -> list[Candidates]:
    return [value] if isinstance(value, Candidates) else list(value)


def _angstrom(candidates: Candidates) -> FloatArray:
    return candidates.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom


def _pairs(
    index: int, some: Candidates, true: Candidates, rows: IntArray, columns: IntArray, distances: FloatArray
) -> tuple[Pair, ...]:
    a, b = some.normal_zyx[rows].astype(np.float64), true.normal_zyx[columns].astype(np.float64)
    # Unlike acos of the dot product, atan2 is accurate at small angles.
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.sum(a * b, axis=1)))
    values = (array.tolist() for array in (rows, columns, distances, angles))
    return tuple(Pair(index, *pair) for pair in zip(*values, strict=True))


def _count_kinds(false: Candidates, lookalikes: Candidates, tolerance: float) -> dict[str, int]:
    """Count the false positives of one tomogram by the kind of the nearest look-alike."""
    nearest = np.full(len(false), -1)
    if len(lookalikes) and len(false):
        distance, index = KDTree(_angstrom(lookalikes)).query(_angstrom(false))
        nearest = np.where(distance <= tolerance, index, -1)
    return dict(Counter(str(lookalikes.kind[i]) if i >= 0 else "other" for i in nearest.tolist()))
