"""The recipe of the bundled models: simulated examples, measurement, and reuse of finished models."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe_toys import toy_example
from torch import nn

import t3ssfast as t3
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import CheckpointWarning, ConfigError
from t3ssfast.models import (
    VERIFIER_ANSWERS,
    AxialKindNet,
    AxialNet,
    LeNet,
    ModelMetadata,
    UNet,
    load_model,
    save_model,
)
from t3ssfast.simulation.parameters import Physics, other_microscopes
from t3ssfast.training.bundled import examples as simulated_examples
from t3ssfast.training.bundled import measure, recipe, train_bundled
from t3ssfast.training.bundled.examples import Use, simulate_examples
from t3ssfast.training.bundled.tables import held_out_tables
from t3ssfast.training.calibrate import calibrate_models, update_metadata
from toy import save_toy_models


def test_every_seed_has_one_use() -> None:
    assert len({use.seed(s, k) for use in Use for s in range(3) for k in range(1000)}) == len(Use) * 3000


def test_simulated_examples_are_read_again(tmp_path: Path) -> None:
    use = Use.TRAINING_WHOLE
    made = simulate_examples(tmp_path, use, 0, 3, (72, 96, 96))
    lines: list[str] = []
    again = simulate_examples(tmp_path, use, 0, 3, (72, 96, 96), log=lines.append)
    assert not lines
    assert len({example.tomogram.name for example in made}) == 3
    for first, second in zip(made, again, strict=True):
        assert first.whole_cells
        assert 80 <= first.physics.cell_radius_nm <= 180
        assert 0.5 <= first.physics.cell_flattening <= 1
        assert first.physics == second.physics
        np.testing.assert_array_equal(first.tomogram.data, second.tomogram.data)
        np.testing.assert_array_equal(first.membrane, second.membrane)
        np.testing.assert_array_equal(first.truth.centre_zyx, second.truth.centre_zyx)


def test_examples_of_other_microscopes_have_their_habits(tmp_path: Path) -> None:
    physics = [Physics.from_dict(other_microscopes(seed)) for seed in range(200)]
    assert 30 < sum(p.phase_shift_pi > 0 for p in physics) < 90
    assert all(p.defocus_um <= 2.5 for p in physics if p.phase_shift_pi > 0)
    assert 20 < sum(p.noise_scale > 1.7 for p in physics) < 80
    assert 20 < sum(p.shift_error_nm > 1.5 for p in physics) < 80
    # Half of the tomograms and more are ordinary in any one respect.
    assert sum(p.phase_shift_pi == 0 and p.noise_scale <= 1.7 for p in physics) > 80
    (example,) = simulate_examples(tmp_path, Use.OTHER_MICROSCOPES, 0, 1, (32, 64, 64))
    assert not example.whole_cells
    assert 0 <= example.physics.flagellar_motors_per_cell <= 5


def test_simulated_examples_of_other_physics_or_version_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulated() -> list[str]:
        lines: list[str] = []
        (example,) = simulate_examples(tmp_path, Use.ORDINARY, 0, 1, (32, 64, 64), log=lines.append)
        assert not example.whole_cells
        return lines

    assert simulated()
    assert not simulated()
    monkeypatch.setattr(simulated_examples, "code_version", lambda: "0.0.0")
    assert simulated()
    assert not simulated()
    monkeypatch.setattr(simulated_examples, "Physics", lambda: Physics(defocus_um=7.0))
    assert simulated()
    assert len(list(tmp_path.iterdir())) == 3


def test_measurement_on_toy_tomograms(tmp_path: Path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    examples = [toy_example(k) for k in range(3)]
    update_metadata(classifier, "classifier", preselect=CoarseScan().to_dict())
    calibrate_models(
        classifier,
        [e.tomogram for e in examples],
        [e.truth for e in examples],
        segmenter=segmenter,
        device="cpu",
    )
    models = (
        load_model(segmenter, model_kind="segmenter"),
        load_model(classifier, model_kind="classifier"),
    )
    metrics, evaluation = measure(examples, *models)
    json.dumps(metrics, allow_nan=False)
    counts = (evaluation.true_positives, evaluation.false_positives, evaluation.false_negatives)
    assert counts == (6, 3, 0)
    assert metrics["detection"]["false_positive_kinds"] == {"secretin": 3}
    assert metrics["detection_by_domain"]["low noise"]["truth"] == 2
    assert metrics["detection_by_domain"]["whole cells"]["truth"] == 0
    views = metrics["detection_by_view"].values()
    assert (sum(v["truth"] for v in views), sum(v["found"] for v in views)) == (6, 6)
    assert metrics["membrane_on_held_out_simulation"]["everywhere"]["dice"] > 0.6
    assert metrics["preselection"]["windows_kept"] < 0.5
    assert metrics["preselection"]["windows_about_particles_kept"] > 0.97
    assert metrics["promises"]["min_recall 0.9"]["recall"][0] == 1
    assert metrics["promises"]["min_precision 0.95"] is None
    with pytest.raises(ConfigError, match="min_precision"):
        t3.detect(
            examples[0].tomogram,
            segmenter=segmenter,
            classifier=classifier,
            config=DetectConfig(min_precision=0.95),
            progress=False,
        )


# By kind: the arguments of `save_model` for a path.
NETWORKS: dict[str, Callable[[Path], tuple[nn.Module, Path, ModelMetadata]]] = {
    "segmenter": lambda path: (UNet(1, 2), path, ModelMetadata("segmenter")),
    "classifier": lambda path: (LeNet((2, 3), (8, 6)), path, ModelMetadata("classifier", window_px=50)),
    "verifier": lambda path: (
        AxialNet((2, 3, 4, 4), 8, 16),
        path,
        ModelMetadata("verifier", window_px=16, classes=VERIFIER_ANSWERS),
    ),
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kind and seed of every model that the recipe trains; training and detection are replaced by toys."""
    calls: list[tuple[str, int]] = []

    def replace_training(kind: str) -> None:
        def train(*arguments: object, seed: int, **options: object) -> None:
            calls.append((kind, seed))
            save_model(*NETWORKS[kind](Path(str(arguments[-1]))))

        monkeypatch.setattr(recipe, f"train_{kind}", train)

    for kind in ("segmenter", "classifier", "verifier"):
        replace_training(kind)
    monkeypatch.setattr(recipe, "simulate_examples", lambda *_, **__: [toy_example(0)])
    monkeypatch.setattr(recipe, "find_candidates", lambda *_, **__: [])
    monkeypatch.setattr(recipe, "calibrate_models", lambda *_, **__: None)
    monkeypatch.setattr(recipe, "measure", lambda *_, **__: ({"measured": 1.0}, None))
    monkeypatch.setattr(recipe, "measure_kinds", lambda *_, **__: {"f1": {}})
    monkeypatch.setattr(recipe, "draw_curves", lambda *_: None)
    monkeypatch.setattr(recipe, "held_out_tables", lambda metrics: f"{metrics['measured']}\n")
    return calls


# The verifier learns T3SS, then kinds, then other microscopes.
ALL_KINDS = ["segmenter", "classifier", *["verifier"] * 3]


def test_recipe_reuses_finished_models(tmp_path: Path, trained: list[tuple[str, int]]) -> None:
    first = train_bundled(tmp_path, size="small")
    assert [kind for kind, _ in trained] == ALL_KINDS
    files = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    trained.clear()
    # Files that something else wrote are replaced by the finished models.
    (tmp_path / "segmenter.safetensors").write_bytes(b"")
    assert train_bundled(tmp_path, size="small") == first
    assert not trained
    assert {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == files
    train_bundled(tmp_path, size="small", resume=False)
    assert [kind for kind, _ in trained] == ALL_KINDS


@pytest.mark.parametrize("changed", [{"seed": 1}, {"tomograms": 4}, {"size": "full"}])
def test_recipe_trains_again_with_another_seed_or_size(
    tmp_path: Path, trained: list[tuple[str, int]], changed: dict[str, object]
) -> None:
    train_bundled(tmp_path, size="small")
    trained.clear()
    options = {"size": "small", **changed}
    with pytest.warns(CheckpointWarning, match="starts from the beginning"):
        train_bundled(tmp_path, **options)  # type: ignore[arg-type]
    assert trained == [(kind, options.get("seed", 0)) for kind in ALL_KINDS]
    # The models of both are kept.
    trained.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_bundled(tmp_path, size="small")
        train_bundled(tmp_path, **options)  # type: ignore[arg-type]
    assert not trained


def test_recipe_trains_again_with_another_version(
    tmp_path: Path, trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_bundled(tmp_path, size="small")
    trained.clear()
    monkeypatch.setattr(recipe, "code_version", lambda: "0.0.0")
    with pytest.warns(CheckpointWarning, match="another version"):
        train_bundled(tmp_path, size="small")
    assert [kind for kind, _ in trained] == ALL_KINDS


def test_unknown_size_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recipe"):
        train_bundled(tmp_path, size="huge")


def test_bundled_networks_are_calibrated_and_measured_without_training(
    tmp_path: Path, trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[tuple[Path | None, tuple[str, ...], bool]] = []
    monkeypatch.setattr(
        recipe,
        "calibrate_models",
        lambda *_, verifier, kinds, store, **__: calibrated.append(
            (verifier, tuple(kinds), store is not None)
        ),
    )
    metrics = train_bundled(tmp_path, size="small", calibrate_only=True)
    assert not trained
    verifier = tmp_path / "verifier.safetensors"
    assert calibrated == [(verifier, ("t3ss",), True), (verifier, ("flagellar_motor",), True)]
    assert metrics["measured"] == 1.0
    assert (tmp_path / "figures.md").read_text(encoding="utf-8") == "1.0\n"
    for kind, network in (("segmenter", UNet), ("classifier", LeNet), ("verifier", AxialKindNet)):
        loaded = load_model(tmp_path / f"{kind}.safetensors", model_kind=kind)
        assert type(loaded.module) is network
        bundled = load_model(None, model_kind=kind).module.state_dict()
        for name, tensor in loaded.module.state_dict().items():
            assert torch.equal(tensor, bundled[name])
    # A training in the same folder does not take them for its own.
    train_bundled(tmp_path, size="small")
    assert [kind for kind, _ in trained] == ALL_KINDS
    with pytest.raises(ConfigError, match="calibrate_only"):
        train_bundled(tmp_path, calibrate_only=True, tomograms=4)


# Pages with some of the figures: how far up from docs/dev, and the name.
PAGES = ((1, "README.md"), (0, "limits.md"))


def test_documented_figures_are_those_of_the_recipe() -> None:
    folder = Path(__file__).parents[2] / "docs" / "dev"
    if not folder.is_dir():
        pytest.skip("installed without the documentation")
    figures = json.loads((folder / "held_out.json").read_text(encoding="utf-8"))
    _, tables, _ = (folder / "bundled-models.md").read_text(encoding="utf-8").split("<!-- held out -->\n")
    assert tables == held_out_tables(figures)
    found = figures["detection"]
    assert found["true_positives"] + found["false_negatives"] == found["truth"]
    assert f"{found['true_positives']}; {found['false_positives']}; {found['false_negatives']}" in tables
    # The pages for users state the same.
    words = [" ".join((folder.parents[k] / name).read_text(encoding="utf-8").split()) for k, name in PAGES]
    readme, limits = words
    assert (
        f"{found['true_positives']} of {found['truth']} T3SS are found with {found['false_positives']} false "
        "candidates"
    ) in readme
    for name in ("slabs through cells", "whole cells", "low noise", "medium noise", "high noise"):
        row = figures["detection_by_domain"][name]
        counts = f"| {row['truth']} | {row['true_positives']} | {row['false_positives']} "
        assert f"{counts}| {row['f1']:.2f} | {row['average_precision_of_all_candidates']:.2f} |" in limits
    motors = figures["kinds"]["counts"]["flagellar_motor"]
    assert motors["t3ss"] == 0
    assert f"with {sum(motors.values())} motors none was taken for a T3SS" in limits
    false = figures["kinds"]["counts"]["none"]["flagellar_motor"]
    reported = f"reported {motors['flagellar_motor']} of the {sum(motors.values())}, with {false} false ones"
    assert reported in limits
