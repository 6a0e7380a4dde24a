"""Matching against brute force, and the figures in every corner case."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from t3ssfast.errors import ConfigError, InputError, OutputError
from t3ssfast.evaluate import evaluate
from t3ssfast.types import Candidates


def at(centre, score=None, normal=None, voxel=10.0, **fields):
    centre = np.asarray(centre, float).reshape(-1, 3)
    n = len(centre)
    score = np.ones(n) if score is None else score
    normal = np.tile([1.0, 0, 0], (n, 1)) if normal is None else normal
    return Candidates(centre, score, normal, voxel, **fields)


def largest_matching(distance, rows, tolerance):
    """Size and least summed distance of the largest one-to-one matching, by trying all."""
    columns = range(distance.shape[1])
    for k in range(min(len(rows), distance.shape[1]), 0, -1):
        sums = [
            sum(distance[i, j] for i, j in zip(some, others, strict=True))
            for some in itertools.combinations(rows, k)
            for others in itertools.permutations(columns, k)
            if all(distance[i, j] <= tolerance for i, j in zip(some, others, strict=True))
        ]
        if sums:
            return k, min(sums)
    return 0, 0.0


def test_matching_and_curve_are_the_best_possible():
    rng = np.random.default_rng(0)
    for _ in range(80):
        n, m = rng.integers(0, 6, 2)
        found = at(rng.uniform(0, 30, (n, 3)), rng.integers(0, 5, n) / 4)
        truth = at(rng.uniform(0, 30, (m, 3)))
        distance = 10 * np.linalg.norm(found.centre_zyx[:, None] - truth.centre_zyx[None], axis=-1)
        evaluation = evaluate(found, truth, 120)
        size, total = largest_matching(distance, range(n), 120)
        assert evaluation.true_positives == size
        assert sum(p.distance_angstrom for p in evaluation.pairs) == pytest.approx(total, abs=1e-2)
        assert (
            len({p.candidate for p in evaluation.pairs}) == len({p.truth for p in evaluation.pairs}) == size
        )
        for score, precision in zip(evaluation.curve_score, evaluation.curve_precision, strict=True):
            kept = np.flatnonzero(found.score >= score)
            assert precision == pytest.approx(largest_matching(distance, kept, 120)[0] / len(kept))


def test_figures_of_a_known_case():
    truth = at([[0, 0, 0], [0, 0, 50], [0, 0, 100]])
    found = at([[0, 0, 1], [0, 0, 2], [0, 0, 51], [0, 0, 300]], [0.9, 0.8, 0.7, 0.6])
    evaluation = evaluate(found, truth, 120)
    assert (evaluation.true_positives, evaluation.false_positives, evaluation.false_negatives) == (2, 2, 1)
    assert evaluation.precision == 0.5
    assert evaluation.recall == pytest.approx(2 / 3)
    assert evaluation.f1 == pytest.approx(4 / 7)
    assert evaluation.f_beta(2) == pytest.approx(5 * 2 / (5 * 2 + 4 * 1 + 2))
    assert evaluation.average_precision == pytest.approx((1 + 2 / 3) / 3)
    assert evaluation.best_f1 == (pytest.approx(2 / 3), pytest.approx(0.7, abs=1e-6))
    assert evaluation.median_distance_angstrom == pytest.approx(10)


def test_voxel_sizes_may_differ():
    truth = at([[10, 20, 30]], voxel=10.0)
    found = at([[20, 40, 60]], voxel=5.0)
    assert evaluate(found, truth, 1.0).true_positives == 1


def test_normals_and_polarity():
    truth = at([[0, 0, 0], [0, 0, 100]], normal=[[1, 0, 0], [0, 1, 0]])
    found = at([[0, 0, 0], [0, 0, 100]], normal=[[np.cos(0.2), np.sin(0.2), 0], [0, -1, 0]])
    evaluation = evaluate(found, truth)
    assert evaluation.median_normal_error_degrees == pytest.approx((np.degrees(0.2) + 180) / 2, abs=1e-3)
    assert evaluation.polarity_right == 0.5


def test_nothing_at_all_is_defined():
    none, some = Candidates.empty(10.0), at([[1, 2, 3]])
    both = evaluate(none, none)
    assert (both.precision, both.recall, both.f1, both.average_precision) == (1, 1, 1, 1)
    silent = evaluate(none, some)
    assert (silent.precision, silent.recall, silent.f1, silent.average_precision) == (1, 0, 0, 0)
    imagined = evaluate(some, none)
    assert (imagined.precision, imagined.recall, imagined.f1, imagined.average_precision) == (0, 1, 0, 0)
    assert math.isnan(silent.median_normal_error_degrees)
    for evaluation in (both, silent, imagined):
        json.dumps(evaluation.to_dict(), allow_nan=False)
        assert evaluation.table().row_count > 5


def test_tomograms_are_pooled_but_never_mixed():
    a, b = at([[0, 0, 0]]), at([[0, 0, 90]])
    assert evaluate([a, b], [a, b]).true_positives == 2
    assert evaluate([a, b], [b, a]).true_positives == 0
    assert [p.tomogram for p in evaluate([a, b], [a, b]).pairs] == [0, 1]
    assert evaluate([], []).f1 == 1
    with pytest.raises(InputError, match="2 tomograms"):
        evaluate([a, b], [a])


def test_false_positives_are_named_after_look_alikes():
    motors = at([[0, 0, 50]], kind=np.array(["flagellar_motor"]))
    found = at([[0, 0, 0], [0, 0, 51], [0, 0, 200]])
    evaluation = evaluate(found, at([[0, 0, 0]]), distractors=motors)
    assert evaluation.false_positive_kinds == {"flagellar_motor": 1, "other": 1}
    assert evaluate(found, found).false_positive_kinds == {}


def test_thousands_are_matched():
    rng = np.random.default_rng(2)
    truth = at(rng.uniform(0, 400, (2000, 3)))
    found = at(truth.centre_zyx + rng.normal(0, 1, (2000, 3)), rng.random(2000))
    assert evaluate(found, truth).true_positives == 2000


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
def test_tolerance_is_a_length(tolerance):
    with pytest.raises(ConfigError, match="tolerance"):
        evaluate(at([[0, 0, 0]]), at([[0, 0, 0]]), tolerance)


def test_beta_is_positive():
    with pytest.raises(ConfigError):
        evaluate(at([[0, 0, 0]]), at([[0, 0, 0]])).f_beta(0)


def test_curve_is_drawn(tmp_path):
    evaluation = evaluate(at([[0, 0, 0]]), at([[0, 0, 0]]))
    evaluation.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OutputError):
        evaluation.plot(tmp_path / "nowhere" / "curve.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]
