"""Decoys in a detection: stored beside the results, pooled over tomograms."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection import run_to_folder
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.decoys import DECOY_FILE, Competition
from t3ssfast.detection.pool import pool_fdr
from t3ssfast.errors import ConfigError, InputError, ReadError
from t3ssfast.tomogram import Tomogram
from toy import Models, save_toy_verifier

World = tuple[Tomogram, Candidates, np.ndarray]
Finish = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def verified(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return models | {"verifier": save_toy_verifier(tmp_path_factory.mktemp("verifier"))}


@pytest.fixture(scope="module")
def finish(
    verified: Models, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Detect in a renamed copy of the toy tomogram; returns the result folder."""
    parent = tmp_path_factory.mktemp("results")

    def run(folder: str, name: str) -> Path:
        tomogram = replace(world[0], name=name)
        config = DetectConfig(max_fdr=0.05)
        run_to_folder(parent / folder, tomogram, config=config, progress=False, device="cpu", **verified)
        return parent / folder

    return run


def test_decoys_are_kept_with_the_result(finish: Finish, verified: Models, world: World) -> None:
    folder = finish("one", "TS_01")
    provenance = json.loads((folder / "provenance.json").read_text())
    found = provenance["false_discovery"]
    assert found["asked"] == 0.05
    # Three particles are too few for a promise.
    assert not found["promised"]
    assert any("cannot be promised" in note for note in provenance["notes"])
    kept = Competition.read(folder / DECOY_FILE, voxel_size_angstrom=13.6)
    assert len(kept.candidates) == found["compared"] >= 3
    assert np.all(np.diff(kept.log_odds) <= 0)
    # An ordinary detection removes them.
    run_to_folder(folder, replace(world[0], name="TS_01"), progress=False, device="cpu", **verified)
    assert not (folder / DECOY_FILE).exists()


def test_finished_results_are_read_with_their_decoys(finish: Finish, verified: Models, world: World) -> None:
    folder = finish("again", "TS_01")
    config = DetectConfig(max_fdr=0.05)
    tomogram = replace(world[0], name="TS_01")
    options: dict[str, Any] = {"config": config, "progress": False, "device": "cpu", **verified}
    detection, new = run_to_folder(folder, tomogram, **options)
    assert not new
    assert detection.competition is not None
    (folder / DECOY_FILE).write_text("damaged")
    detection, new = run_to_folder(folder, tomogram, **options)
    assert new
    assert detection.competition is not None


def test_decoys_start_at_the_same_peaks_and_look_into_the_cell(verified: Models, world: World) -> None:
    """Candidate and decoy of an untrained verifier, which knows no direction, score alike."""
    config = DetectConfig(max_fdr=0.05)
    competition = t3.detect(world[0], config=config, progress=False, device="cpu", **verified).competition
    assert competition is not None
    ordinary = t3.detect(
        world[0], config=DetectConfig(score_threshold=0.0), progress=False, device="cpu", **verified
    )
    np.testing.assert_allclose(competition.candidates.centre_zyx, ordinary.candidates.centre_zyx)
    np.testing.assert_allclose(competition.log_odds, competition.decoy_log_odds, atol=0.5)
    assert np.any(competition.log_odds != competition.decoy_log_odds)


def test_only_candidates_that_beat_their_decoys_are_above() -> None:
    none = np.zeros((3, 3), np.float32)
    candidates = Candidates(none, np.array([0.9, 0.8, 0.7]), none + 1, 13.6)
    competition = Competition(candidates, np.array([3.0, 2.0, 1.0]), np.array([0.0, 4.0, 0.0]))
    assert competition.above(1.5).score.tolist() == pytest.approx([0.9])
    assert competition.above(0.0).score.tolist() == pytest.approx([0.9, 0.7])


def test_decoys_survive_a_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    candidates = Candidates(
        rng.uniform(0, 500, (7, 3)), rng.random(7), rng.normal(size=(7, 3)), 10.0, (9, 9, 9), "TS_007"
    )
    competition = Competition(candidates, rng.normal(0, 5, 7), rng.normal(0, 5, 7))
    competition.write(tmp_path / "decoys.csv")
    grid = {"voxel_size_angstrom": 10.0, "tomogram_shape": (9, 9, 9), "tomogram_name": "TS_007"}
    read = Competition.read(tmp_path / "decoys.csv", **grid)
    np.testing.assert_allclose(read.log_odds, competition.log_odds, rtol=1e-5)
    np.testing.assert_allclose(read.decoy_log_odds, competition.decoy_log_odds, rtol=1e-5)
    np.testing.assert_allclose(read.candidates.centre_zyx, candidates.centre_zyx, rtol=1e-5)
    np.testing.assert_allclose(read.candidates.normal_zyx, candidates.normal_zyx, atol=1e-6)
    assert read.candidates.tomogram_name == "TS_007"
    Competition(candidates[:0], np.zeros(0), np.zeros(0)).write(tmp_path / "none.csv")
    assert len(Competition.read(tmp_path / "none.csv", **grid).candidates) == 0


@pytest.mark.parametrize("content", [None, "", "z,y,x\n1,2,3\n", "nan"])
def test_damaged_decoys_are_reported(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "decoys.csv"
    if content == "nan":
        one = Candidates(np.zeros((1, 3)), np.ones(1), np.ones((1, 3)), 10.0)
        Competition(one, np.array([np.nan]), np.zeros(1)).write(path)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ReadError, match="decoys cannot be read"):
        Competition.read(path, voxel_size_angstrom=10.0)


def test_pooling_searches_nothing_again(finish: Finish, tmp_path: Path) -> None:
    folders = [finish(f"pool{k}", f"TS_{k}") for k in range(2)]
    pooled = pool_fdr(folders, 0.4)
    assert pooled.threshold.tomograms == 2
    assert [some.tomogram_name for some in pooled.candidates] == ["TS_0", "TS_1"]
    pooled.save(tmp_path / "pooled")
    summary = json.loads((tmp_path / "pooled" / "false_discovery.json").read_text())
    assert summary["asked"] == 0.4
    assert summary["candidates_by_tomogram"] == {s.tomogram_name: len(s) for s in pooled.candidates}
    for name in ("TS_0", "TS_1"):
        assert (tmp_path / "pooled" / name / "candidates.star").is_file()
    with pytest.raises(InputError, match="two results of TS_0"):
        pool_fdr([folders[0], folders[0]], 0.05)


def test_what_cannot_be_pooled_is_refused(
    models: Models, world: World, finish: Finish, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no result folder"):
        pool_fdr([], 0.05)
    with pytest.raises(ReadError, match="no finished result"):
        pool_fdr([tmp_path], 0.05)
    run_to_folder(tmp_path / "plain", world[0], progress=False, device="cpu", **models)
    with pytest.raises(ReadError, match="without decoys"):
        pool_fdr([tmp_path / "plain"], 0.05)
    folders = [finish(f"other{k}", f"TS_{k}") for k in range(2)]
    provenance = json.loads((folders[1] / "provenance.json").read_text())
    provenance["models"]["verifier"]["sha256"] = "another"
    (folders[1] / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(InputError, match="other models"):
        pool_fdr(folders, 0.05)


@pytest.mark.parametrize(
    "options", [{"min_precision": 0.9}, {"min_recall": 0.9}, {"score_threshold": 0.7}, {"verify": False}]
)
def test_at_most_one_way_to_set_the_threshold(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="max_fdr"):
        DetectConfig(max_fdr=0.05, **options)
    with pytest.raises(ConfigError, match="max_fdr"):
        DetectConfig(max_fdr=1.5)


def test_decoys_need_a_verifier(models: Models, world: World) -> None:
    with pytest.raises(ConfigError, match="no verifier to score decoys"):
        t3.detect(world[0], config=DetectConfig(max_fdr=0.05), progress=False, device="cpu", **models)
