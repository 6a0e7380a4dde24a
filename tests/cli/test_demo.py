"""`t3ssfast demo`, pictures of candidates, and detection with the bundled models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.cli import demo as demo_module
from t3ssfast.detection.config import DetectConfig
from t3ssfast.models import loading
from t3ssfast.models.metadata import METADATA_NAME
from t3ssfast.plotting import candidates as plots
from t3ssfast.plotting import draw_candidates, draw_gallery
from t3ssfast.tomogram import Tomogram
from toy import save_toy_models, save_toy_verifier, toy_tomogram


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace the bundled models by toy models, and make the demo small."""
    weights = tmp_path / "weights"
    weights.mkdir()
    files = dict(zip(("segmenter", "classifier"), save_toy_models(weights), strict=True))
    files["verifier"] = save_toy_verifier(weights)
    # Toy models are not networks of the package, so they are translated as those of others.
    monkeypatch.setattr(loading, "read_bundled", lambda kind: (files[kind].read_bytes(), "0" * 64))
    monkeypatch.setattr(
        loading,
        "from_safetensors",
        lambda content, name: loading.translate(loading.Archive(content, METADATA_NAME), name),
    )
    monkeypatch.setattr(demo_module, "SHAPE", (24, 96, 96))


@pytest.mark.usefixtures("small_demo")
def test_demo_writes_the_files_it_lists(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(app, ["demo", "-o", str(out), "--seed", "3", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for word in ("true positives (TP)", "false positives (FP)", "false negatives (FN)", "F1", "total"):
        assert word in result.output
    report = CliRunner().invoke(app, ["demo", "-o", str(out), "--seed", "3", "--device", "cpu", "--json"])
    content = json.loads(report.stdout)
    for name in content["files"]:
        assert (out / name).is_file(), name
    assert is_png(out / "candidates.png")
    assert is_png(out / "gallery.png")
    evaluation = content["evaluation"]
    assert evaluation["true_positives"] + evaluation["false_negatives"] == evaluation["truth"]
    assert set(content["seconds"]) == {"simulate", "detect", "evaluate and draw"}


@pytest.mark.usefixtures("small_demo")
def test_demo_reports_an_error_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert result.output.count("error:") == 1


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_truth", [False, True])
def test_pictures_of_any_number_of_candidates(tmp_path: Path, count: int, with_truth: bool) -> None:
    tomogram, truth, membrane = toy_tomogram(shape=(12, 60, 90))
    known = truth if with_truth else None
    draw_candidates(tmp_path / "c.png", tomogram, truth[:count], membrane=membrane, truth=known)
    draw_gallery(tmp_path / "g.png", tomogram, truth[:count], truth=known, contrast_sign=-1)
    assert is_png(tmp_path / "c.png")
    assert is_png(tmp_path / "g.png")


def test_gallery_is_grey_outside_of_the_tomogram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(plots, "_show", lambda axes, image, interpolation: shown.append(image))
    tomogram, truth, _ = toy_tomogram(shape=(12, 60, 90))
    truth.centre_zyx[0, 1:] = 0
    draw_gallery(tmp_path / "g.png", tomogram, truth[:1])
    (window,) = shown
    assert np.unique(window[: len(window) // 2]).size == 1
    assert window.min() < window[0, 0] < window.max()
    assert np.unique(window[len(window) // 2 :, len(window) // 2 :]).size > 1


def test_title_counts_candidates(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram(shape=(12, 60, 90))
    for count, words in ((0, "0 candidates"), (1, "1 candidate"), (2, "2 candidates")):
        marks = plots._marks(truth[:count], None)
        assert plots._title(tomogram, marks, None) == f"{tomogram.name}: {words}"


def test_pictures_of_one_slice_without_membrane(tmp_path: Path) -> None:
    flat = Tomogram(np.zeros((1, 20, 20), np.int8), 10.0, "flat")
    draw_candidates(tmp_path / "c.png", flat, Candidates.empty(10.0), membrane=np.zeros((1, 20, 20)))
    draw_gallery(tmp_path / "g.png", flat, Candidates.empty(10.0))
    assert is_png(tmp_path / "c.png")


# ---------------------------------------------------------------------------------------- bundled models


def test_bundled_models_find_the_t3ss_of_unseen_simulations() -> None:
    found, known = [], []
    for seed in (90_001, 90_002):
        simulation = t3.simulate(seed, (64, 224, 224))
        found.append(t3.detect(simulation.tomogram, device="cpu", progress=False).candidates)
        known.append(simulation.truth)
    result = t3.evaluate(found, known, 120.0)
    assert result.n_truth >= 8
    assert result.f1 >= 0.8
    assert result.median_normal_error_degrees <= 20
    assert result.polarity_right >= 0.9


def test_slabs_and_threads_do_not_change_what_bundled_models_find() -> None:
    tomogram = t3.simulate(90_003, (40, 160, 160)).tomogram
    before = torch.get_num_threads()

    def run(**options: object) -> Candidates:
        config = DetectConfig(score_threshold=0.2, **options)  # type: ignore[arg-type]
        return t3.detect(tomogram, device="cpu", progress=False, config=config).candidates

    whole = run()
    for options in ({"slab_slices": 3}, {"threads": 2}):
        other = run(**options)
        assert len(other) == len(whole)
        np.testing.assert_allclose(other.centre_zyx, whole.centre_zyx, atol=0.05)
        np.testing.assert_allclose(other.score, whole.score, atol=1e-4)
    assert torch.get_num_threads() == before
    # Scores that are interpolated between classified windows find the same, at nearly the same places.
    sparse = run(classified_spacing_nm=3.0)
    assert len(sparse) == len(whole)
    np.testing.assert_allclose(sparse.centre_zyx, whole.centre_zyx, atol=0.3)
    np.testing.assert_allclose(sparse.score, whole.score, atol=0.05)


def test_bundled_models_find_nothing_in_noise() -> None:
    noise = np.random.default_rng(0).normal(size=(24, 128, 128)).astype(np.float32)
    detection = t3.detect(noise, voxel_size_angstrom=13.6, device="cpu", progress=False)
    assert len(detection.candidates) == 0
