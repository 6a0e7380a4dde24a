"""Preselection: rules, models and coarse scans, learned from picks and applied to search regions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.pick import pick
from t3ssfast.detection.preselect import (
    DEFAULT_STATISTICS,
    CoarseScan,
    PeakLimit,
    PreselectRule,
    WindowFilter,
    learn_preselection,
    learn_rule,
    particle_windows,
    read_preselection,
)
from t3ssfast.detection.preselect.block_statistics import BlockStatistics
from t3ssfast.detection.preselect.learn_model import block_windows, learn_model
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.smooth_scores import SparseScores
from t3ssfast.errors import InputError, ModelError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel, load_model
from toy import VOXEL, save_toy_models, toy_tomogram

NAMES = ("mean", "std", "min")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 400), st.floats(0.5, 1.0), st.floats(0.0, 1.0))
def test_rule_keeps_the_requested_fraction_of_positives(
    seed: int, n: int, keep: float, margin: float
) -> None:
    rng = np.random.default_rng(seed)
    positives = rng.standard_t(2, size=(3, n)) * [[1.0], [100.0], [1e-3]] + [[0.0], [1e4], [-5.0]]
    rule = learn_rule(positives, NAMES, keep=keep, margin=margin)
    kept = rule.keeps(positives)
    assert kept.mean() >= keep
    assert rule.positives_kept == pytest.approx(kept.mean())
    assert rule.positives == n


def test_rule_is_tight_and_reports_kept_fractions() -> None:
    rng = np.random.default_rng(0)
    positives = rng.normal(size=(3, 2000))
    negatives = rng.normal(size=(3, 5000)) + np.array([[4.0], [0.0], [0.0]])
    rule = learn_rule(positives, NAMES, negatives, keep=0.95, margin=0.0)
    assert 0.95 <= rule.positives_kept < 0.96
    assert rule.negatives == 5000
    assert rule.negatives_kept is not None
    assert rule.negatives_kept < 0.1
    assert rule.negatives_kept == rule.keeps(negatives).mean()
    # Outliers among the picks do not widen the bounds.
    with_outliers = positives.copy()
    with_outliers[0, :5] = 1e6
    assert learn_rule(with_outliers, NAMES, keep=0.95).high[0] < 10
    wider = learn_rule(positives, NAMES, keep=0.95, margin=1.0)
    np.testing.assert_allclose(np.subtract(wider.high, rule.high), 1.0, atol=0.1)
    np.testing.assert_allclose(np.subtract(rule.low, wider.low), 1.0, atol=0.1)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"size": 50, "statistics": ["mean"], "low": [0.0]},
        {"size": 50, "statistics": ["mean"], "low": [1.0], "high": [0.0]},
        {"size": 50, "statistics": ["mean"], "low": [0.0], "high": ["x"]},
        {"size": 50, "statistics": ["mean"], "low": [0.0], "high": [1.0], "new": 1},
    ],
)
def test_invalid_stored_rules_are_rejected(entries: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="learn it again"):
        PreselectRule.from_dict(entries)


@pytest.mark.parametrize(
    ("positives", "options", "message"),
    [
        (np.zeros((3, 0)), {}, "at least one window"),
        (np.zeros((2, 5)), {}, "3 names"),
        (np.full((3, 5), np.nan), {}, "not finite"),
        (np.zeros((3, 5)), {"keep": 0.0}, "keep"),
        (np.zeros((3, 5)), {"margin": -1.0}, "margin"),
    ],
)
def test_rule_rejects_invalid_training_data(
    positives: np.ndarray, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        learn_rule(positives, NAMES, **options)


@pytest.mark.parametrize("size", [11, 12])
def test_rule_removes_windows_outside_its_bounds(size: int) -> None:
    rng = np.random.default_rng(1)
    slab = rng.normal(size=(2, 40, 45)).astype(np.float32)
    mask = rng.random(slab.shape) < 0.3
    rule = PreselectRule(size, NAMES, (-0.05, 0.9, -3.5), (0.1, 1.02, -2.0))
    padded = pad_for_windows(slab, size)
    kept = rule.apply(padded, mask)
    assert kept.dtype == bool
    assert 0 < kept.sum() < mask.sum()
    assert not (kept & ~mask).any()
    for n, y, x in np.argwhere(mask):
        # The window centred at (y, x) of the slab begins at (y, x) of the padded slice.
        window = padded[n, y : y + size, x : x + size].astype(np.float64)
        assert window[size // 2, size // 2] == slab[n, y, x]
        values = np.array([[window.mean()], [window.std()], [window.min()]])
        assert kept[n, y, x] == rule.keeps(values)[0]
    assert not rule.apply(padded, np.zeros_like(mask)).any()
    single = rule.apply(padded[0], mask[0].astype(np.uint8))
    np.testing.assert_array_equal(single, kept[0])


def test_rule_removes_constant_windows() -> None:
    rule = PreselectRule(10, ("skewness",), (-9.0,), (9.0,))
    assert not rule.apply(np.ones((1, 20, 20), np.float32), np.ones((1, 11, 11), bool)).any()


def test_rule_learned_from_picks_is_used_in_a_detection(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    mask, rule = t3.preselect(tomogram, membrane, truth, classifier=classifier)
    assert mask.shape == tomogram.shape
    assert mask.dtype == np.uint8
    assert rule.statistics == DEFAULT_STATISTICS
    assert rule.positives_kept >= 0.995
    assert rule.negatives_kept is not None
    assert rule.negatives_kept < 0.7
    for z, y, x in np.round(truth.centre_zyx).astype(int):
        assert mask[z - 2 : z + 3, y - 1 : y + 2, x - 1 : x + 2].mean() > 0.9
    # Stored in a classifier, the rule gives the same mask.
    _, with_rule = save_toy_models(tmp_path, preselect=rule.to_dict())
    again, stored = t3.preselect(tomogram, membrane, classifier=with_rule)
    assert stored == rule
    np.testing.assert_array_equal(again, mask)
    options = {"membrane": membrane, "classifier": with_rule, "device": "cpu", "progress": False}
    filtered = t3.detect(tomogram, **options)
    every = t3.detect(tomogram, **options, config=DetectConfig(preselect=False))
    assert filtered.provenance["counts"]["windows_judged"] == int(mask.sum())
    assert every.provenance["counts"]["windows_judged"] == every.provenance["counts"]["windows_searched"]
    assert t3.evaluate(filtered.candidates, truth, 120.0).f1 == 1
    assert t3.evaluate(filtered.candidates, every.candidates, 50.0).f1 == 1


def test_preselect_reports_missing_input(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram(shape=(4, 110, 110))
    _, classifier = save_toy_models(tmp_path)
    with pytest.raises(ModelError, match="no preselection"):
        t3.preselect(tomogram, membrane, classifier=classifier)
    with pytest.raises(InputError, match="empty"):
        t3.preselect(tomogram, np.zeros_like(membrane), classifier=classifier)
    with pytest.raises(InputError, match="mask"):
        t3.preselect(tomogram, membrane[1:], classifier=classifier)
    with pytest.raises(InputError, match="picks"):
        t3.preselect(tomogram, membrane, truth[:0], classifier=classifier)


def test_command_learns_from_pairs_and_writes_a_classifier(tmp_path: Path) -> None:
    _, classifier = save_toy_models(tmp_path)
    files, examples = [], [toy_tomogram(shape=(24, 110 + 8 * k, 118)) for k in range(2)]
    for k, (tomogram, truth, membrane) in enumerate(examples):
        t3.write(tmp_path / f"t{k}.mrc", tomogram.data, VOXEL)
        t3.write(tmp_path / f"m{k}.mrc", membrane, VOXEL)
        t3.export(truth, tmp_path / f"t{k}.csv", "csv")
        files += [str(tmp_path / f"t{k}.mrc"), str(tmp_path / f"m{k}.mrc")]
    picks = [word for k in range(2) for word in ("--picks", str(tmp_path / f"t{k}.csv"))]
    learned = tmp_path / "learned.pt"
    options = ["--classifier", str(classifier), "--learn", "--keep", "0.99", "-o", str(learned)]
    plot = tmp_path / "statistics.png"
    result = CliRunner().invoke(app, ["preselect", *files, *picks, *options, "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert "99.0% of the windows on T3SS" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    preselection = read_preselection(load_model(learned, model_kind="classifier").metadata.preselect)
    expected = learn_preselection(
        *([example[i] for example in examples] for i in (0, 2, 1)), classifier=classifier, keep=0.99
    )
    assert preselection == expected
    for wrong, message in (
        ([*files[:3], *picks, *options], "3 files were given"),
        ([*files, *picks, "-o", "w.mrc"], "several pairs with --learn"),
        ([*files, *options], "--learn needs T3SS"),
        ([*files[:2], "--plot", "p.png", "-o", "w.mrc"], "--plot needs T3SS"),
    ):
        result = CliRunner().invoke(app, ["preselect", *wrong])
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())


def test_command_writes_the_mask(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram(shape=(8, 110, 110))
    _, classifier = save_toy_models(tmp_path)
    t3.write(tmp_path / "t.mrc", tomogram.data, VOXEL)
    t3.write(tmp_path / "m.mrc", membrane, VOXEL)
    t3.export(truth, tmp_path / "picks.csv", "csv")
    files = [str(tmp_path / "t.mrc"), str(tmp_path / "m.mrc"), "--picks", str(tmp_path / "picks.csv")]
    options = ["-o", str(tmp_path / "w.mrc"), "--classifier", str(classifier)]
    result = CliRunner().invoke(app, ["preselect", *files, *options, "--json"])
    assert result.exit_code == 0, result.output
    rule = PreselectRule.from_dict(json.loads(result.stdout))
    expected, learned = t3.preselect(tomogram, membrane, truth, classifier=classifier)
    assert rule == learned
    np.testing.assert_array_equal(t3.read(tmp_path / "w.mrc").data, expected)
    assert "window centres" in CliRunner().invoke(app, ["preselect", *files, *options]).output
    wrong = CliRunner().invoke(app, ["preselect", *files, *options, "--contrast", "blue"])
    assert wrong.exit_code == 1


def test_padded_slices_have_one_window_per_voxel() -> None:
    slab = np.random.default_rng(0).normal(size=(1, 30, 31)).astype(np.float32)
    assert window_statistics(pad_for_windows(slab, 14), 14, ("mean",)).shape == (1, 1, 30, 31)


# ------------------------------------------------------------------------------------- statistics of blocks


def blocks_example() -> tuple[PreparedTomogram, np.ndarray]:
    tomogram, _, membrane = toy_tomogram(shape=(11, 101, 108), particles=1)
    return PreparedTomogram.prepare(tomogram, voxel_size_angstrom=VOXEL), membrane


def test_block_features_are_statistics_of_averaged_slices() -> None:
    grid, membrane = blocks_example()
    blocks = BlockStatistics(grid, search_region(membrane), (6, 3), ("mean", "max"))
    assert blocks.planes == 3
    chosen = blocks.region(1)
    chosen[20, 30] = chosen[40, 5] = True
    features = blocks.features(1, chosen)
    # Means over 4 x 2 x 2 voxels, of the plane and its neighbours; the last plane has three slices.
    volume = grid.slab(0, 11).astype(np.float64)
    planes = [volume[a:b].mean(axis=0) for a, b in ((0, 4), (4, 8), (8, 11))]
    padded = np.pad(np.mean(planes, axis=0), ((0, 1), (0, 0)), mode="edge")
    coarse = padded.reshape(51, 2, 54, 2).mean(axis=(1, 3))
    share = np.pad(membrane[4:8].mean(axis=0), ((0, 1), (0, 0)), mode="edge").reshape(51, 2, 54, 2)
    share = share.mean(axis=(1, 3))
    expected = []
    for values, names in ((coarse, (np.mean, np.max)), (share, (np.mean,))):
        for size in (6, 3):
            around = np.pad(values, ((size // 2, size - 1 - size // 2),) * 2, mode="reflect")
            expected += [
                [name(around[y : y + size, x : x + size]) for y, x in np.argwhere(chosen)] for name in names
            ]
    # Statistics are standardised: a linear function of those computed here.
    for found, raw in zip(features[:4], np.array(expected)[:4], strict=True):
        unclipped = np.abs(found) < 7.9
        slope, offset = np.polyfit(raw[unclipped], found[unclipped], 1)
        np.testing.assert_allclose(found[unclipped], slope * raw[unclipped] + offset, atol=2e-3)
        assert slope > 0
    np.testing.assert_allclose(features[4:], np.array(expected)[4:], atol=1e-5)


def test_block_features_do_not_depend_on_grey_scale_or_slab() -> None:
    grid, membrane = blocks_example()
    options: dict[str, Any] = {"sizes": (6,), "statistics": ("mean", "std", "skewness")}
    blocks = BlockStatistics(grid, search_region(membrane), **options)
    region = blocks.region(1)
    features = blocks.features(1, region)
    rescaled = t3.Tomogram(grid.tomogram.data * 3 + 7, VOXEL, "rescaled")
    other = PreparedTomogram.prepare(rescaled, voxel_size_angstrom=VOXEL)
    np.testing.assert_allclose(
        BlockStatistics(other, search_region(membrane), **options).features(1, region), features, atol=2e-3
    )
    for z0, z1 in ((4, 8), (3, 7), (0, 11)):
        again = BlockStatistics(grid, search_region(membrane), **options).features(
            1, region, grid.slab(z0, z1), z0
        )
        np.testing.assert_array_equal(again, features)


def training_windows(
    seed: int, tomograms: int = 6, n: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.random(n) < 0.2
    features = rng.normal(size=(4, n))
    features[1] += 4.0 * true
    features[2] -= 2.0 * true
    return features, true, np.arange(n) % tomograms


def test_model_keeps_the_requested_fraction_in_other_tomograms() -> None:
    options: dict[str, Any] = {"sizes": (6, 3), "statistics": ("mean",)}
    model = learn_model(*training_windows(0), **options, keep=0.97)
    features, true, _ = training_windows(1, n=4000)
    kept = model.keeps(features)
    assert kept[true].mean() > 0.94
    assert kept[~true].mean() < 0.2
    assert model.metrics["negatives_kept"] == pytest.approx(kept[~true].mean(), abs=0.1)
    assert model.weight[1] > abs(model.weight[0])
    stricter = learn_model(*training_windows(0), **options, keep=0.8)
    assert stricter.threshold > model.threshold
    features[0, :5] = np.nan
    assert not model.keeps(features)[:5].any()


def test_preselections_survive_json() -> None:
    model = learn_model(*training_windows(2), sizes=(6, 3), statistics=("mean",))
    rule = learn_rule(np.random.default_rng(0).normal(size=(3, 50)), NAMES, np.zeros((3, 4)), size=20)
    for preselection in (model, CoarseScan(4, 2, 0.05, {"kept": 0.1}), rule):
        assert read_preselection(json.loads(json.dumps(preselection.to_dict()))) == preselection
    assert read_preselection(None) is None


def test_preselections_of_earlier_versions_are_read() -> None:
    entries = {"kind": "look", "stride_z": 4, "stride_yx": 2, "level": 0.1, "figures": {"kept": 0.1}}
    assert read_preselection(entries) == CoarseScan(4, 2, 0.1, {"kept": 0.1})


@pytest.mark.parametrize(
    "entries",
    [
        {"kind": "guess"},
        {"kind": "coarse_scan"},
        {"kind": "coarse_scan", "stride_z": 0, "stride_yx": 4, "level": 0.1},
        {"kind": "coarse_scan", "stride_z": 4, "stride_yx": 4, "level": "x"},
        {"kind": "model", "sizes": [6], "statistics": ["mean"], "weight": [1.0], "threshold": 0},
        {"kind": "model", "sizes": [], "statistics": [], "weight": [], "threshold": 0},
        {"kind": "model", "sizes": [6], "statistics": ["mean"], "weight": [1.0, 2.0]},
    ],
)
def test_invalid_stored_preselections_are_rejected(entries: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        read_preselection(entries)


def test_model_rejects_invalid_training_data(monkeypatch: pytest.MonkeyPatch) -> None:
    features, true, tomogram = training_windows(3)
    options: dict[str, Any] = {"sizes": (6, 3), "statistics": ("mean",)}
    with pytest.raises(InputError, match="features"):
        learn_model(features[:3], true, tomogram, **options)
    with pytest.raises(InputError, match="at least two"):
        learn_model(features, true, np.zeros_like(tomogram), **options)
    with pytest.raises(InputError, match="keep"):
        learn_model(features, true, tomogram, **options, keep=1.0)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(t3.T3Error, match=r"t3ssfast\[train\]"):
        learn_model(features, true, tomogram, **options)


def search_region(membrane: np.ndarray) -> SearchRegion:
    return SearchRegion(membrane, VOXEL, 16.0)


def prepare_for(classifier: Path, tomogram: t3.Tomogram) -> tuple[LoadedModel, PreparedTomogram]:
    model = load_model(classifier, model_kind="classifier")
    return model, PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=VOXEL, normalisation=model.metadata.normalisation
    )


def filter_region(
    preselection: Any,
    tomogram: t3.Tomogram,
    membrane: np.ndarray,
    classifier: Path,
    thickness: int,
    peaks: PeakLimit | None = None,
) -> np.ndarray:
    """Apply a preselection to the search region around a membrane, in slabs of a thickness."""
    model, grid = prepare_for(classifier, tomogram)
    search = search_region(membrane)
    window_filter = WindowFilter(preselection, grid, search, model, peaks=peaks)
    slabs = [(z0, min(z0 + thickness, len(membrane))) for z0 in range(0, len(membrane), thickness)]
    return np.concatenate(
        [window_filter.apply(grid.slab(*slab), search.slab(*slab), slab[0]) for slab in slabs]
    )


@pytest.mark.parametrize("kind", ["coarse_scan", "model"])
def test_filter_keeps_the_particles_in_slabs_of_any_thickness(tmp_path: Path, kind: str) -> None:
    tomogram, truth, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    preselection: Any = CoarseScan(4, 4, 0.1)
    if kind == "model":
        examples = [toy_tomogram(shape=(24, 120 + 2 * k, 132)) for k in range(2)]
        preselection = learn_preselection(
            *([example[i] for example in examples] for i in (0, 2, 1)),
            classifier=classifier,
            config=DetectConfig(search_distance_nm=16.0),
            keep=0.99,
        )
    whole = filter_region(preselection, tomogram, membrane, classifier, 24)
    for thickness in (1, 5, 9):
        cut = filter_region(preselection, tomogram, membrane, classifier, thickness)
        np.testing.assert_array_equal(cut, whole)
    region = search_region(membrane).slab(0, len(membrane))
    assert whole.dtype == np.uint8
    assert not (whole & ~region).any()
    assert whole.sum() < 0.5 * region.sum()
    on_particles = particle_windows(tomogram, truth) & (region != 0)
    assert on_particles.sum() > 100
    assert whole[on_particles].mean() > 0.97
    # A detection uses the preselection stored in the classifier, and still finds everything.
    _, with_preselection = save_toy_models(tmp_path, preselect=preselection.to_dict())
    options = {"membrane": membrane, "classifier": with_preselection, "device": "cpu", "progress": False}
    detection = t3.detect(tomogram, **options, config=DetectConfig(search_distance_nm=16.0))
    judged = detection.provenance["counts"]["windows_judged"]
    assert judged == whole.sum() if kind == "model" else judged < whole.sum()
    assert t3.evaluate(detection.candidates, truth, 120.0).f1 == 1


def test_second_scan_keeps_what_becomes_a_peak_in_slabs_of_any_thickness(tmp_path: Path) -> None:
    tomogram, truth, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    scan, peaks = CoarseScan(4, 4, 0.1), PeakLimit(0.5, 5.0)
    first = filter_region(scan, tomogram, membrane, classifier, 24)
    whole = filter_region(scan, tomogram, membrane, classifier, 24, peaks)
    for thickness in (1, 5, 9):
        cut = filter_region(scan, tomogram, membrane, classifier, thickness, peaks)
        np.testing.assert_array_equal(cut, whole)
    assert not (whole & ~first).any()
    assert 0 < whole.sum() < first.sum()
    # Peaks of all windows of the first scan, and of those that the second keeps.
    model, grid = prepare_for(classifier, tomogram)
    values = grid.slab(0, len(membrane))
    picked = []
    for region in (first, whole):
        index, probability = classify_slab(values, region, model)
        scores = SparseScores(index, probability, grid.shape)
        picked.append(
            pick(scores, voxel_size_angstrom=VOXEL, smoothing_nm=5.0, threshold=0.5, min_distance_nm=24.0)
        )
    assert len(picked[0][0]) == len(truth)
    np.testing.assert_allclose(picked[1][0], picked[0][0], atol=0.3)
    np.testing.assert_allclose(picked[1][1], picked[0][1], atol=0.02)
    # Where slices are averaged little, those between the scanned ones are not known.
    unsmoothed = filter_region(scan, tomogram, membrane, classifier, 24, PeakLimit(0.5, 1.0))
    np.testing.assert_array_equal(unsmoothed, first)


def test_coarse_scan_keeps_the_blocks_around_a_high_score(tmp_path: Path) -> None:
    tomogram, _, membrane = toy_tomogram(shape=(9, 110, 121))
    _, classifier = save_toy_models(tmp_path)
    kept = filter_region(CoarseScan(3, 5, 0.2), tomogram, membrane, classifier, 9)
    model, grid = prepare_for(classifier, tomogram)
    region = search_region(membrane).slab(0, len(membrane))
    every = t3.score_windows(model.module, pad_for_windows(grid.slab(0, 9), 50), mask=region)
    score = np.zeros(region.shape)
    score[region != 0] = np.exp(every[:, 1]) / np.exp(every).sum(axis=1)
    for z, y, x in np.argwhere(region)[::53]:
        scanned = [
            score[min(3 * k + 1, 8), min(5 * j + 2, 999), 5 * i + 2]
            for k in range(max(0, z // 3 - 1), min(2, z // 3 + 1) + 1)
            for j in range(max(0, y // 5 - 1), min(21, y // 5 + 1) + 1)
            for i in range(max(0, x // 5 - 1), x // 5 + 2)
            if 5 * j + 2 < 110 and 5 * i + 2 < 121
        ]
        assert kept[z, y, x] == (max(scanned) >= 0.2)


def test_block_windows_are_those_on_particles_and_a_sample_of_the_others() -> None:
    tomogram, truth, membrane = toy_tomogram()
    grid = PreparedTomogram.prepare(tomogram, voxel_size_angstrom=VOXEL)
    features, true = block_windows(grid, search_region(membrane), grid.from_tomogram(truth.centre_zyx))
    assert features.shape == (32, len(true))
    assert 20 < true.sum() < len(true) / 2
    no_features, no_windows = block_windows(grid, search_region(np.zeros_like(membrane)), np.zeros((0, 3)))
    assert no_features.shape == (32, 0)
    assert len(no_windows) == 0
    with pytest.raises(InputError, match="one of each"):
        learn_preselection([tomogram], [], [truth])
