"""Confusion of the kinds of particles: which kind the candidates on particles of each kind were taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import PARTICLE_KINDS, Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.evaluation.matching import match, pairs_within

__all__ = ["NONE", "Confusion", "confusion_of_kinds"]

# The row of candidates on no particle, and the column of particles without a candidate.
NONE = "none"


@dataclass(frozen=True, eq=False)
class Confusion:
    """Numbers of particles by true kind and by the kind of the candidate on them.

    `counts` is (kinds + 1, kinds + 1), rows true and columns found; the last row and column are `NONE`.
    """

    kinds: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    tomograms: int

    def count(self, true: str, found: str) -> int:
        """Return the number of particles of a kind that were found as another, or `NONE` for either."""
        names = [*self.kinds, NONE]
        return int(self.counts[names.index(true), names.index(found)])

    def f1(self, kind: str) -> float:
        """Return F1 of the particles of a kind that were found as this kind."""
        index = self.kinds.index(kind)
        either = int(self.counts[index].sum() + self.counts[:, index].sum())
        return 2 * int(self.counts[index, index]) / either if either else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return counts by true and found kind, F1 by kind, and the number of tomograms."""
        names = [*self.kinds, NONE]
        return {
            "tomograms": self.tomograms,
            "counts": {true: {found: self.count(true, found) for found in names} for true in names},
            "f1": {kind: self.f1(kind) for kind in self.kinds},
        }


def confusion_of_kinds(
    candidates: Candidates | Sequence[Candidates],
    truth: Candidates | Sequence[Candidates],
    tolerance_angstrom: float = 120.0,
) -> Confusion:
    """Match candidates and particles one to one, whatever their kinds, and count the pairs of kinds.

    Parameters
    ----------
    candidates, truth
        One `Candidates` per tomogram, as for `evaluate`, with all kinds that are to be compared. The kinds of
        the table are those in `truth` or `candidates`.
    tolerance_angstrom
        Largest distance between the centres of a pair.

    Raises
    ------
    InputError, ConfigError
        The sequences differ in length, or the tolerance is not a positive number.
    """
    found = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    known = [truth] if isinstance(truth, Candidates) else list(truth)
    if not (np.isfinite(tolerance_angstrom) and tolerance_angstrom > 0):
        raise ConfigError(f"tolerance_angstrom is {tolerance_angstrom!r}; give a length above 0.")
    if len(found) != len(known):
        raise InputError(
            f"Candidates of {len(found)} tomograms and truth of {len(known)} were given; give both for every "
            "tomogram."
        )
    present = {str(kind) for some in (*found, *known) for kind in some.kind}
    kinds = tuple(kind for kind in PARTICLE_KINDS if kind in present)
    kinds += tuple(sorted(present - set(kinds)))
    index = {kind: number for number, kind in enumerate(kinds)}
    none = len(kinds)
    counts = np.zeros((none + 1, none + 1), np.int64)
    for some, true in zip(found, known, strict=True):
        found_at, true_at = (one.centre_zyx * np.float64(one.voxel_size_angstrom) for one in (some, true))
        rows, columns, distances = pairs_within(found_at, true_at, tolerance_angstrom)
        chosen = match(rows, columns, distances)
        rows, columns = rows[chosen], columns[chosen]
        found_kind = np.array([index[str(kind)] for kind in some.kind], np.int64)
        true_kind = np.array([index[str(kind)] for kind in true.kind], np.int64)
        missed, false = np.delete(true_kind, columns), np.delete(found_kind, rows)
        true_kind = np.concatenate([true_kind[columns], missed, np.full(len(false), none)])
        found_kind = np.concatenate([found_kind[rows], np.full(len(missed), none), false])
        np.add.at(counts, (true_kind, found_kind), 1)
    return Confusion(kinds, counts, len(found))
