"""Verdicts from a curation file, put on the candidates that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from t3ssfast.candidates import Candidates
from t3ssfast.io.tomogram_names import match_names

__all__ = ["SAME_CANDIDATE_ANGSTROM", "apply_verdicts"]

# A verdict farther from every candidate is about a particle that the detection did not find. Files of text
# round positions, and two candidates are at least 10 nm apart.
SAME_CANDIDATE_ANGSTROM = 20.0


def apply_verdicts(
    candidates: Sequence[Candidates], verdicts: Sequence[Candidates]
) -> tuple[list[Candidates], list[Candidates]]:
    """Put verdicts on the candidates at their positions.

    Parameters
    ----------
    candidates
        One entry for each tomogram.
    verdicts
        Of any tomograms, as `load_all_curations` returns them.

    Returns
    -------
    labelled
        The candidates with the labels, and "chosen_by" among their details.
    others
        For each entry of `candidates`, the verdicts that are about none of them, such as added particles.
    """
    by_name = {some.tomogram_name: some for some in verdicts}
    matched = match_names([some.tomogram_name for some in candidates], by_name)
    labelled, others = [], []
    for some in candidates:
        known = by_name[matched[some.tomogram_name]] if some.tomogram_name in matched else None
        if known is None or not len(known):
            labelled.append(some)
            others.append(some[:0])
            continue
        label = some.label.astype("<U8")
        chosen_by = np.asarray(some.details.get("chosen_by", np.full(len(some), "")), dtype="<U32")
        reasons = known.details.get("chosen_by", np.full(len(known), ""))
        unmatched = np.ones(len(known), bool)
        if len(some):
            distance, nearest = map(np.asarray, KDTree(_angstrom(some)).query(_angstrom(known)))
            for row in np.flatnonzero(distance <= SAME_CANDIDATE_ANGSTROM):
                unmatched[row] = False
                if known.label[row]:
                    label[nearest[row]] = known.label[row]
                if reasons[row]:
                    chosen_by[nearest[row]] = reasons[row]
        details = {**some.details, "chosen_by": chosen_by} if (chosen_by != "").any() else some.details
        labelled.append(replace(some, label=label, details=details))
        others.append(replace(known[unmatched], tomogram_name=some.tomogram_name))
    return labelled, others


def _angstrom(candidates: Candidates) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    scaled: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (
        candidates.centre_zyx.astype(np.float64) * candidates.voxel_size_angstrom
    )
    return scaled
