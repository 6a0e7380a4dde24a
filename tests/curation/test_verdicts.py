"""Verdicts put on the candidates that they are about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from t3ssfast.curation import apply_verdicts


def test_verdicts_find_their_candidates_in_other_voxels_and_orders(make_candidates):
    some = make_candidates(12)
    order = np.random.default_rng(0).permutation(12)
    label = np.resize(["accepted", "rejected", "unsure", ""], 12)
    binned = replace(some, centre_zyx=some.centre_zyx / 2, voxel_size_angstrom=27.2, label=label)[order]
    moved = replace(binned, centre_zyx=binned.centre_zyx + 0.3)
    (labelled,), (others,) = apply_verdicts([some], [replace(moved, tomogram_name="rec_TS_007.mrc")])
    assert labelled.label.tolist() == label.tolist()
    assert len(others) == 0


def test_other_particles_and_tomograms_are_left(make_candidates):
    some, empty = make_candidates(3), make_candidates(0, tomogram_name="none")
    added = make_candidates(2, seed=5, label=["accepted", "accepted"])
    elsewhere = make_candidates(2, tomogram_name="other", label=["rejected", "rejected"])
    labelled, others = apply_verdicts([some, empty], [added, elsewhere, replace(added, tomogram_name="none")])
    assert labelled[0].label.tolist() == ["", "", ""]
    assert [len(one) for one in others] == [2, 2]
    assert others[1].tomogram_name == "none"


def test_no_verdict_takes_none_away(make_candidates):
    some = make_candidates(2, label=["accepted", ""])
    (labelled,), _ = apply_verdicts([some], [make_candidates(2, details={"chosen_by": ["random", ""]})])
    assert labelled.label.tolist() == ["accepted", ""]
    assert labelled.details["chosen_by"].tolist() == ["random", ""]
