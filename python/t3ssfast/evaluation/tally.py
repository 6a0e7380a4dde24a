"""What was counted in one tomogram."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

__all__ = ["Pair", "Tally"]


@dataclass(frozen=True)
class Pair:
    """A candidate and the particle it found.

    Parameters
    ----------
    tomogram
        Index of the tomogram among those evaluated.
    candidate, truth
        Indices into that tomogram's candidates and truth.
    distance_angstrom
        Between their centres.
    normal_error_degrees
        Angle between their normals, 0 to 180; above 90 the polarity is wrong.
    """

    tomogram: int
    candidate: int
    truth: int
    distance_angstrom: float
    normal_error_degrees: float


@dataclass(frozen=True, eq=False)
class Tally:
    """What was counted in one tomogram.

    Parameters
    ----------
    name
        Of the tomogram.
    scores
        (n,) of the candidates.
    hits
        (n,) 1 for each candidate that, added in the order of score, made one more pair possible. Their sum is
        the number of pairs; of two candidates on a particle, the one with the higher score is the hit.
    n_truth
        Particles in it.
    pairs
        One for each true positive, of the matching with the least summed distance.
    false_positive_kinds
        False positives by the look-alike they sit on.
    """

    name: str
    scores: FloatArray
    hits: FloatArray
    n_truth: int
    pairs: tuple[Pair, ...]
    false_positive_kinds: dict[str, int] = field(default_factory=dict)
