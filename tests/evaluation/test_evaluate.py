"""Matching against brute force, metrics in corner cases, and the command."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.errors import ConfigError, InputError, OutputError
from t3ssfast.evaluation import expected_calibration_error
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.evaluation.report import draw_curves, pooled_table
from t3ssfast.io.particles import export


def particles(centre, score=None, normal=None, voxel=10.0, **fields):
    centre = np.asarray(centre, float).reshape(-1, 3)
    n = len(centre)
    score = np.ones(n) if score is None else score
    normal = np.tile([1.0, 0, 0], (n, 1)) if normal is None else normal
    return Candidates(centre, score, normal, voxel, **fields)


def largest_matching(distance, rows, tolerance):
    """Size and least total distance of the largest one-to-one matching, by brute force."""
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


def test_matching_and_curve_equal_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(80):
        n, m = rng.integers(0, 6, 2)
        found = particles(rng.uniform(0, 30, (n, 3)), rng.integers(0, 5, n) / 4)
        truth = particles(rng.uniform(0, 30, (m, 3)))
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


def test_metrics_of_a_known_case():
    truth = particles([[0, 0, 0], [0, 0, 50], [0, 0, 100]])
    found = particles([[0, 0, 1], [0, 0, 2], [0, 0, 51], [0, 0, 300]], [0.9, 0.8, 0.7, 0.6])
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
    truth = particles([[10, 20, 30]], voxel=10.0)
    found = particles([[20, 40, 60]], voxel=5.0)
    assert evaluate(found, truth, 1.0).true_positives == 1


def test_normal_error_and_polarity():
    truth = particles([[0, 0, 0], [0, 0, 100]], normal=[[1, 0, 0], [0, 1, 0]])
    found = particles([[0, 0, 0], [0, 0, 100]], normal=[[np.cos(0.2), np.sin(0.2), 0], [0, -1, 0]])
    evaluation = evaluate(found, truth)
    assert evaluation.median_normal_error_degrees == pytest.approx((np.degrees(0.2) + 180) / 2, abs=1e-3)
    assert evaluation.polarity_right == 0.5


def test_metrics_without_candidates_or_truth():
    none, some = Candidates.empty(10.0), particles([[1, 2, 3]])
    neither, no_candidates, no_truth = evaluate(none, none), evaluate(none, some), evaluate(some, none)
    for evaluation, expected in (
        (neither, (1, 1, 1, 1)),
        (no_candidates, (1, 0, 0, 0)),
        (no_truth, (0, 1, 0, 0)),
    ):
        metrics = evaluation.precision, evaluation.recall, evaluation.f1, evaluation.average_precision
        assert metrics == expected
    assert math.isnan(no_candidates.median_normal_error_degrees)
    for evaluation in (neither, no_candidates, no_truth):
        json.dumps(evaluation.to_dict(), allow_nan=False)
        assert pooled_table(evaluation).row_count > 5


def test_tomograms_are_pooled_but_matched_separately():
    a, b = particles([[0, 0, 0]]), particles([[0, 0, 90]])
    assert evaluate([a, b], [a, b]).true_positives == 2
    assert evaluate([a, b], [b, a]).true_positives == 0
    assert [p.tomogram for p in evaluate([a, b], [a, b]).pairs] == [0, 1]
    assert evaluate([], []).f1 == 1
    with pytest.raises(InputError, match="2 tomograms"):
        evaluate([a, b], [a])


def test_false_positives_are_counted_by_look_alike():
    motors = particles([[0, 0, 50]], kind=np.array(["flagellar_motor"]))
    found = particles([[0, 0, 0], [0, 0, 51], [0, 0, 200]])
    evaluation = evaluate(found, particles([[0, 0, 0]]), distractors=motors)
    assert evaluation.false_positive_kinds == {"flagellar_motor": 1, "other": 1}
    assert evaluate(found, found).false_positive_kinds == {}


def test_matching_of_thousands():
    rng = np.random.default_rng(2)
    truth = particles(rng.uniform(0, 400, (2000, 3)))
    found = particles(truth.centre_zyx + rng.normal(0, 1, (2000, 3)), rng.random(2000))
    assert evaluate(found, truth).true_positives == 2000


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
def test_invalid_tolerance_is_refused(tolerance):
    with pytest.raises(ConfigError, match="tolerance"):
        evaluate(particles([[0, 0, 0]]), particles([[0, 0, 0]]), tolerance)


def test_invalid_beta_is_refused():
    with pytest.raises(ConfigError):
        evaluate(particles([[0, 0, 0]]), particles([[0, 0, 0]])).f_beta(0)


def test_draw_curves(tmp_path):
    evaluation = evaluate(particles([[0, 0, 0]]), particles([[0, 0, 0]]))
    draw_curves(evaluation, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OutputError):
        draw_curves(evaluation, tmp_path / "nowhere" / "curve.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]


def calibrated_tomograms(seed=0, tomograms=4, noise=0.5):
    """Candidates whose scores are the probability that they are true, and the truth."""
    rng = np.random.default_rng(seed)
    found, known = [], []
    for k in range(tomograms):
        centre = np.stack(np.meshgrid(*[np.arange(0, 400, 40.0)] * 2, [0.0]), axis=-1).reshape(-1, 3)
        score = np.round(rng.random(len(centre)), 6)
        true = rng.random(len(centre)) < score
        name = {"tomogram_name": f"TS_{k:02d}"}
        found.append(particles(centre + rng.normal(0, noise, centre.shape), score, **name))
        known.append(particles(centre[true], **name))
    return found, known


def test_per_tomogram_evaluations_add_up_to_the_pooled_one():
    found, known = calibrated_tomograms()
    pooled = evaluate(found, known)
    parts = pooled.per_tomogram
    assert [part.matches[0].name for part in parts] == ["TS_00", "TS_01", "TS_02", "TS_03"]
    for part, some, true in zip(parts, found, known, strict=True):
        alone = evaluate(some, true)
        assert part.to_dict() == alone.to_dict()
    for name in ("true_positives", "false_positives", "false_negatives", "n_truth"):
        assert getattr(pooled, name) == sum(getattr(part, name) for part in parts)
    assert pooled.hits.sum() == pooled.true_positives
    np.testing.assert_array_equal(np.bincount(pooled.tomogram_index), [len(c) for c in found])


def test_higher_score_is_the_hit_of_two_candidates_on_a_particle():
    found = particles([[0, 0, 1], [0, 0, 0]], [0.9, 0.8])
    evaluation = evaluate(found, particles([[0, 0, 0]]))
    assert evaluation.hits.tolist() == [1, 0]
    assert [p.candidate for p in evaluation.pairs] == [1]


def test_calibration_error():
    found, known = calibrated_tomograms(tomograms=10)
    assert evaluate(found, known).calibration_error < 0.05
    overconfident = [replace(c, score=np.ones(len(c))) for c in found]
    evaluation = evaluate(overconfident, known)
    assert evaluation.calibration_error == pytest.approx(1 - evaluation.precision)
    assert expected_calibration_error([0.25, 0.25, 0.75, 0.75], [0, 1, 1, 1]) == pytest.approx(0.25)
    assert math.isnan(evaluate(Candidates.empty(10.0), known[0]).calibration_error)


def test_intervals_contain_the_metric_and_shrink_with_more_data():
    few, many = (evaluate(*calibrated_tomograms(tomograms=n)) for n in (3, 24))
    for evaluation in (few, many, few.per_tomogram[0]):
        intervals = evaluation.intervals(resamples=300)
        for name in ("precision", "recall", "f1", "average_precision"):
            low, high = intervals[name].low, intervals[name].high
            assert 0 <= low <= getattr(evaluation, name) <= high <= 1
    width = [e.intervals(resamples=300)["precision"] for e in (few.per_tomogram[0], many)]
    assert width[1].high - width[1].low < width[0].high - width[0].low
    assert few.intervals(seed=1, resamples=50) == few.intervals(seed=1, resamples=50)
    wide, narrow = (many.intervals(level=level, resamples=300)["f1"] for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ConfigError, match="level"):
        few.intervals(level=95)
    with pytest.raises(ConfigError, match="resamples"):
        few.intervals(resamples=1)


def test_intervals_cover_the_truth_at_their_confidence_level():
    # Candidates are true with probability 0.5 on average.
    inside = 0
    for seed in range(40):
        evaluation = evaluate(*calibrated_tomograms(seed, tomograms=8))
        interval = evaluation.intervals(resamples=100, level=0.9)["precision"]
        inside += interval.low <= 0.5 <= interval.high
    assert 28 <= inside <= 40


def test_false_positives_in_tomograms_without_particles():
    found = [particles([[0, 0, 0]]), particles([[0, 0, 0], [0, 0, 90]]), Candidates.empty(10.0)]
    known = [particles([[0, 0, 0]]), Candidates.empty(10.0), Candidates.empty(10.0)]
    assert evaluate(found, known).false_positives_without_truth == 1.0
    assert math.isnan(evaluate(found[0], known[0]).false_positives_without_truth)


def test_precision_at_recall():
    truth = particles([[0, 0, 50 * k] for k in range(10)])
    found = particles(
        [[0, 0, 50 * k + (1000 if k == 3 else 0)] for k in range(10)], np.linspace(0.9, 0.1, 10)
    )
    evaluation = evaluate(found, truth)
    assert evaluation.precision_at_recall(0.3) == 1
    assert evaluation.precision_at_recall(0.9) == pytest.approx(0.9)
    assert math.isnan(evaluation.precision_at_recall(0.95))


def test_to_dict_can_be_written_as_json():
    metrics = evaluate(*calibrated_tomograms()).to_dict(beta=0.5, intervals=True, per_tomogram=True)
    again = json.loads(json.dumps(metrics, allow_nan=False))
    assert set(again["tomograms"]) == {"TS_00", "TS_01", "TS_02", "TS_03"}
    assert again["beta"] == 0.5
    assert sum(again["reliability"]["candidates"]) == again["candidates"]
    low, high = again["intervals"]["f_beta"]
    assert low <= again["f_beta"] <= high


def write_each(folder, parts, pattern):
    for part in parts:
        path = folder / pattern.format(part.tomogram_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        export(part, path, "csv")


@pytest.mark.parametrize(
    ("candidate_pattern", "truth_pattern"),
    [
        ("{}.csv", "{}_truth.csv"),
        ("{}_candidates.csv", "{}.csv"),
        ("{}/candidates.csv", "{}/truth.csv"),
    ],
)
def test_command_pairs_files_by_name(tmp_path, candidate_pattern, truth_pattern):
    found, known = calibrated_tomograms()
    write_each(tmp_path / "found", found, candidate_pattern)
    write_each(tmp_path / "known", known, truth_pattern)
    given = [str(p) for p in sorted((tmp_path / "found").rglob("*.csv"))]
    truth = [x for p in sorted((tmp_path / "known").rglob("*.csv"), reverse=True) for x in ("-t", str(p))]
    options = ["--voxel-size", "10", "--json", "--json-file", str(tmp_path / "f.json")]
    result = CliRunner().invoke(app, ["evaluate", *given, *truth, *options])
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert metrics == json.loads((tmp_path / "f.json").read_text())
    expected = evaluate(found, known)
    assert metrics["true_positives"] == expected.true_positives
    assert metrics["false_negatives"] == expected.false_negatives
    assert len(metrics["tomograms"]) == 4
    assert metrics["intervals"]["f1"][0] <= metrics["f1"] <= metrics["intervals"]["f1"][1]


def test_command_reads_folders_and_plots(tmp_path):
    found, known = calibrated_tomograms(tomograms=2)
    write_each(tmp_path / "found", found, "{}.csv")
    write_each(tmp_path / "known", known, "{}.csv")
    folders = [str(tmp_path / "found"), str(tmp_path / "known")]
    plot = ["--plot", str(tmp_path / "p.png"), "--voxel-size", "10"]
    result = CliRunner().invoke(app, ["evaluate", *folders, *plot])
    assert result.exit_code == 0, result.output
    assert "TS_01" in result.output
    assert "95% interval" in result.output
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_command_reports_files_without_counterpart(tmp_path):
    found, known = calibrated_tomograms(tomograms=3)
    write_each(tmp_path / "found", found, "{}.csv")
    write_each(tmp_path / "known", known[:2], "{}.csv")
    (tmp_path / "empty").mkdir()
    run = CliRunner()
    result = run.invoke(app, ["evaluate", str(tmp_path / "found"), str(tmp_path / "known")])
    assert result.exit_code == 1
    assert "candidates of TS_02 but no truth" in " ".join(result.output.split())
    result = run.invoke(app, ["evaluate", str(tmp_path / "found"), str(tmp_path / "empty")])
    assert "holds neither" in " ".join(result.output.split())
    twice = [str(tmp_path / "found" / "TS_00.csv")] * 2
    result = run.invoke(app, ["evaluate", *twice, "-t", str(tmp_path / "known" / "TS_00.csv")])
    assert "both called TS_00" in " ".join(result.output.split())
    assert run.invoke(app, ["evaluate", str(tmp_path / "found")]).exit_code == 2
