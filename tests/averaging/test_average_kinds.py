"""Kinds of particles in an average: which candidates are averaged, and which are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from t3ssfast.averaging import average as averaging
from t3ssfast.averaging.average import AverageConfig, average
from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.tomogram import Tomogram

CONFIG = AverageConfig(iterations=1, refinements=0, angular_step_degrees=60, cone_degrees=0)
COUNT = 10


@pytest.fixture
def particles() -> tuple[Tomogram, Candidates]:
    rng = np.random.default_rng(0)
    volume = Tomogram(rng.normal(size=(40, 40, 40)).astype(np.float32), 20.0, "noise")
    centre, normal = rng.uniform(12, 28, (COUNT, 3)), rng.normal(size=(COUNT, 3))
    return volume, Candidates(centre, np.ones(COUNT), normal, 20.0, volume.shape, volume.name)


def test_other_kinds_are_left_out_from_the_first_iteration_on(particles, monkeypatch) -> None:
    told = np.array(["t3ss", "flagellar_motor"])[np.arange(COUNT) % 5 // 4]
    monkeypatch.setattr(averaging, "tell_kinds", lambda *_, **__: told)
    (kept,) = average(*particles, 16, config=CONFIG, device="cpu").kept
    np.testing.assert_array_equal(kept, told == "t3ss")
    (all_kept,) = average(*particles, 16, config=replace(CONFIG, reject_other_kinds=False), device="cpu").kept
    assert all_kept.all()
    # A half set is never emptied.
    told[:] = "flagellar_motor"
    (all_kept,) = average(*particles, 16, config=CONFIG, device="cpu").kept
    assert all_kept.all()


@pytest.mark.parametrize(
    ("kind", "averaged"), [("t3ss", 6), ("flagellar_motor", 4), ("all", COUNT), ("class_2", 3)]
)
def test_only_candidates_of_the_kind_are_averaged(particles, kind, averaged) -> None:
    volume, candidates = particles
    # Class labels of other programs say nothing about the kind.
    candidates = replace(candidates, kind=["t3ss"] * 3 + ["class_2"] * 3 + ["flagellar_motor"] * 4)
    config = replace(CONFIG, kind=kind, reject_other_kinds=False)
    result = average(volume, candidates, 16, config=config, device="cpu")
    assert len(result.candidates[0]) == averaged


def test_a_kind_without_candidates_is_refused(particles) -> None:
    with pytest.raises(InputError, match="flagellar_motor"):
        average(*particles, 16, config=replace(CONFIG, kind="flagellar_motor"), device="cpu")
