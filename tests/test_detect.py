"""The whole chain, on a toy world and with models made by hand; and what it says to bad input."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import t3ssfast as t3
from t3ssfast._native import openvino_version
from t3ssfast.cli import app
from t3ssfast.errors import (
    ConfigError,
    DeviceError,
    InputError,
    ModelError,
    OutputError,
    ReadError,
    T3Error,
    VoxelSizeError,
)
from t3ssfast.models import ModelMetadata, save_model
from t3ssfast.types import Candidates, DetectConfig, Tomogram
from toy import INNER, MIDDLE, VOXEL, ToySegmenter, save_toy_models, toy_classifier, toy_tomogram

Models = dict[str, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    segmenter, classifier = save_toy_models(tmp_path_factory.mktemp("models"))
    return {"segmenter": segmenter, "classifier": classifier}


@pytest.fixture(scope="module")
def world() -> tuple[Tomogram, Candidates, np.ndarray]:
    return toy_tomogram()


def run(tomogram: Any, models: Models, **options: Any) -> t3.Detection:
    return t3.detect(tomogram, **{"progress": False, "device": "cpu", **models, **options})


def same(a: t3.Detection, b: t3.Detection) -> None:
    for name in ("centre_zyx", "score", "normal_zyx"):
        np.testing.assert_array_equal(getattr(a.candidates, name), getattr(b.candidates, name))


def test_every_particle_is_found_with_its_pose(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram, truth, membrane = world
    detection = run(tomogram, models)
    found = t3.evaluate(detection.candidates, truth, 120.0)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (3, 0, 0)
    assert found.median_normal_error_degrees < 10
    assert found.polarity_right == 1
    assert (np.diff(detection.candidates.score) <= 0).all()
    assert detection.candidates.tomogram_shape == tomogram.shape
    assert detection.candidates.tomogram_name == "toy"
    assert detection.membrane is not None
    assert detection.membrane.dtype == np.uint8
    assert detection.membrane.shape == tomogram.shape
    overlap = 2 * (detection.membrane & membrane).sum() / (detection.membrane.sum() + membrane.sum())
    assert overlap > 0.6


def test_provenance_tells_what_was_done(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    provenance = run(world[0], models).provenance
    json.dumps(provenance, allow_nan=False)
    assert provenance["software"]["torch"] == torch.__version__
    assert provenance["models"]["classifier"]["path"] == str(models["classifier"])
    assert len(provenance["models"]["segmenter"]["sha256"]) == 64
    assert provenance["contrast"]["sign"] == 1
    counts = provenance["counts"]
    assert counts["voxels"] == world[0].data.size
    assert counts["voxels"] > counts["windows_searched"] >= counts["windows_judged"] > 0
    assert counts["candidates"] == 3
    assert provenance["config"] == DetectConfig().to_dict()
    assert {"segment", "classify", "pick"} <= set(provenance["seconds"])
    assert provenance["notes"] == []
    assert "dense" in provenance["plan"]
    assert provenance["models"]["segmenter"]["engine"] in ("torch", "openvino")
    assert provenance["models"]["segmenter"]["engine_reason"]


@pytest.mark.parametrize("slab_slices", [1, 7, 1000])
def test_slabs_do_not_change_the_result(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], slab_slices: int
) -> None:
    whole = run(world[0], models)
    cut = run(world[0], models, config=DetectConfig(slab_slices=slab_slices))
    same(whole, cut)
    np.testing.assert_array_equal(whole.membrane, cut.membrane)


def test_a_small_memory_budget_and_the_threads_do_not_change_the_result(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    before = torch.get_num_threads()
    small = DetectConfig(memory_budget_bytes=64 << 20, threads=2)
    same(run(world[0], models), run(world[0], models, config=small))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "engine",
    [
        "torch",
        pytest.param(
            "openvino",
            marks=pytest.mark.skipif(openvino_version() is None, reason="OpenVINO is not installed"),
        ),
    ],
)
def test_tiles_threads_and_engines_move_no_candidate(
    world: tuple[Tomogram, Candidates, np.ndarray], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bundled U-Net, whose tiles differ by rounding, and slices of more than one tile."""
    detect_module = importlib.import_module("t3ssfast.detect.passes")
    tomogram = replace(world[0], data=np.tile(world[0].data[4:10], (1, 3, 4)))
    options = {"score_threshold": 0.001, "verify": False, "contrast": "dark", "membrane_min_area_nm2": 100.0}

    def found(**config: Any) -> t3.Detection:
        return run(tomogram, {}, config=DetectConfig(**options, **config))

    whole = found(segmenter_engine="torch", threads=1)
    assert len(whole.candidates) > 0
    monkeypatch.setattr(detect_module, "tile_side", lambda config: 304)
    monkeypatch.setattr(importlib.import_module("t3ssfast.segment"), "MIN_TILE", 304)
    for config in ({"threads": 1}, {"threads": 2, "slab_slices": 2}):
        other = found(segmenter_engine=engine, **config)
        assert other.provenance["models"]["segmenter"]["engine"] == engine
        assert len(other.candidates) == len(whole.candidates)
        np.testing.assert_allclose(other.candidates.centre_zyx, whole.candidates.centre_zyx, atol=0.05)
        np.testing.assert_allclose(other.candidates.score, whole.candidates.score, atol=1e-4)


def test_memory_stays_within_the_budget(models: Models, tmp_path: Path) -> None:
    """A file larger than the budget; what libraries take once, on first use, is taken before."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is read from /proc")
    small, _, _ = toy_tomogram(shape=(24, 120, 132))
    volume = np.random.default_rng(1).standard_normal((180, 450, 500), np.float32)
    volume[90:114, 200:320, 100:232] = small.data
    t3.write(tmp_path / "small.mrc", small.data, VOXEL)
    t3.write(tmp_path / "large.mrc", volume, VOXEL)
    budget = 128 << 20
    assert volume.nbytes > 1.2 * budget
    code = (
        "import sys, t3ssfast as t3\n"
        "def peak():\n"
        "    with open('/proc/self/status') as file:\n"
        "        return next(int(x.split()[1]) << 10 for x in file if x.startswith('VmHWM'))\n"
        "def find(path):\n"
        "    options = {'contrast': 'dark', 'threads': 1, 'score_threshold': 0.25}\n"
        "    config = t3.DetectConfig(memory_budget_bytes=int(sys.argv[5]), **options)\n"
        "    models = {'segmenter': sys.argv[3], 'classifier': sys.argv[4]}\n"
        "    return t3.detect(path, **models, config=config, device='cpu', progress=False)\n"
        "find(sys.argv[1])\n"
        "before = peak()\n"
        "assert len(find(sys.argv[2]).candidates) == 3\n"
        "print(peak() - before)\n"
    )
    arguments = [tmp_path / "small.mrc", tmp_path / "large.mrc", models["segmenter"], models["classifier"]]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments), str(budget)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < budget


def test_a_membrane_that_is_given_replaces_the_segmenter(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram, truth, membrane = world
    given = run(tomogram, {"classifier": models["classifier"]}, membrane=membrane)
    assert given.membrane is None
    assert given.provenance["models"]["segmenter"] is None
    assert given.provenance["contrast"]["sign"] == 1
    assert t3.evaluate(given.candidates, truth, 120.0).f1 == 1
    t3.write(tmp_path / "membrane.mrc", membrane, 1.0)
    from_file = run(tomogram, {"classifier": models["classifier"]}, membrane=tmp_path / "membrane.mrc")
    same(given, from_file)
    as_tensor = run(
        torch.from_numpy(tomogram.data),
        {"classifier": models["classifier"]},
        membrane=torch.from_numpy(membrane) > 0,
        voxel_size_angstrom=VOXEL,
    )
    same(given, as_tensor)


def test_bright_protein_is_recognised(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, _, membrane = world
    dark = run(tomogram, models)
    inverted = replace(tomogram, data=-tomogram.data)
    for options in (
        {"segmenter": models["segmenter"]},
        {"segmenter": models["segmenter"], "config": DetectConfig(contrast="light")},
        {"membrane": membrane},
    ):
        bright = run(inverted, {"classifier": models["classifier"]}, **options)
        assert bright.provenance["contrast"]["sign"] == -1
        np.testing.assert_allclose(bright.candidates.centre_zyx, dark.candidates.centre_zyx, atol=0.5)
    wrong = run(inverted, models, config=DetectConfig(contrast="dark"))
    assert len(wrong.candidates) == 0


def test_models_trained_on_bright_protein_are_used_as_such(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    class Inverted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(-x)

    metadata = ModelMetadata("segmenter", voxel_size_angstrom=VOXEL, contrast="light")
    save_model(Inverted(ToySegmenter()), tmp_path / "light.pt", metadata)
    light = run(world[0], {**models, "segmenter": tmp_path / "light.pt"})
    assert light.provenance["contrast"]["sign"] == 1
    same(light, run(world[0], models))


# With so much noise, as much of it is left after resampling as the toy models expect.
@pytest.mark.parametrize(("step", "noise"), [(0.8, 1.9), (1.25, 1.35)])
def test_another_voxel_size_is_resampled_and_mapped_back(models: Models, step: float, noise: float) -> None:
    tomogram, truth, membrane = toy_tomogram(step=step, noise=noise)
    detection = run(tomogram, models)
    found = t3.evaluate(detection.candidates, truth, 120.0)
    assert (found.true_positives, found.false_positives, found.polarity_right) == (3, 0, 1)
    assert found.median_distance_angstrom < 40
    assert detection.candidates.voxel_size_angstrom == tomogram.voxel_size_angstrom
    assert detection.membrane is not None
    overlap = 2 * (detection.membrane & membrane).sum() / (detection.membrane.sum() + membrane.sum())
    assert overlap > 0.6


def test_models_with_different_grids_work_together(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram, truth, _ = world
    metadata = ModelMetadata("segmenter", voxel_size_angstrom=VOXEL * 1.2)
    save_model(ToySegmenter(level=-1.3), tmp_path / "coarse.pt", metadata)
    detection = run(tomogram, {**models, "segmenter": tmp_path / "coarse.pt"})
    assert t3.evaluate(detection.candidates, truth, 120.0).f1 == 1
    assert detection.membrane is not None
    assert detection.membrane.shape == tomogram.shape


def test_a_file_gives_what_its_array_gives(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram = world[0]
    t3.write(tmp_path / "toy.mrc", tomogram.data, VOXEL)
    array = run(tomogram.data, models, voxel_size_angstrom=VOXEL)
    file = run(tmp_path / "toy.mrc", models)
    same(array, file)
    assert file.candidates.tomogram_name == "toy"
    assert file.provenance["input"]["sha256"] != array.provenance["input"]["sha256"]
    # The header's size is overridden: at half the size the whole volume is a cell half as large.
    other = run(tmp_path / "toy.mrc", models, voxel_size_angstrom=VOXEL * 1.2)
    assert other.candidates.voxel_size_angstrom == pytest.approx(VOXEL * 1.2)


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(np.float64),
        lambda a: a.astype(">f4"),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    ],
)
def test_any_layout_gives_the_same(
    models: Models,
    world: tuple[Tomogram, Candidates, np.ndarray],
    convert: Callable[[np.ndarray], np.ndarray],
) -> None:
    data = convert(world[0].data)
    data.flags.writeable = False
    same(run(data, models, voxel_size_angstrom=VOXEL), run(world[0], models))


def test_integers_are_searched(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, truth, _ = world
    data = np.clip(np.round(tomogram.data * 20), -128, 127).astype(np.int8)
    found = t3.evaluate(run(data, models, voxel_size_angstrom=VOXEL).candidates, truth, 120.0)
    assert found.true_positives == 3


def test_a_tomogram_without_membrane_has_no_candidates(models: Models) -> None:
    noise = np.random.default_rng(1).normal(size=(12, 80, 80)).astype(np.float32)
    detection = run(noise, models, voxel_size_angstrom=VOXEL)
    assert len(detection.candidates) == 0
    assert detection.membrane is not None
    assert not detection.membrane.any()
    assert "No membrane" in detection.provenance["notes"][0]


def test_one_slice_is_a_tomogram(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, truth, membrane = world
    z = round(float(truth.centre_zyx[0, 0]))
    one = slice(z, z + 1)
    detection = run(
        tomogram.data[one],
        {"classifier": models["classifier"]},
        membrane=membrane[one],
        voxel_size_angstrom=VOXEL,
    )
    near = np.linalg.norm(detection.candidates.centre_zyx[:, 1:] - truth.centre_zyx[0, 1:], axis=1)
    assert near.min() < 4
    # No piece of membrane in one slice has the area that is asked of one in a thick volume.
    segmented = run(tomogram.data[one], models, voxel_size_angstrom=VOXEL)
    assert segmented.membrane is not None
    assert segmented.membrane.mean() > 0.03


def test_particles_at_the_edge_of_the_volume_are_found(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram, truth, membrane = world
    # Cut right through the periplasm beside the first particle, which leaves half of a window about it.
    cut = int(truth.centre_zyx[0, 2]) + 8
    detection = run(
        tomogram.data[:, :, :cut],
        {"classifier": models["classifier"]},
        membrane=membrane[:, :, :cut],
        voxel_size_angstrom=VOXEL,
    )
    near = np.linalg.norm(detection.candidates.centre_zyx - truth.centre_zyx[0], axis=1)
    assert near.min() < 6


def test_max_candidates_and_threshold_keep_the_best(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    every = run(world[0], models)
    best = run(world[0], models, config=DetectConfig(max_candidates=1))
    np.testing.assert_array_equal(best.candidates.centre_zyx, every.candidates.centre_zyx[:1])
    between = float(every.candidates.score[:2].mean())
    assert len(run(world[0], models, config=DetectConfig(score_threshold=between)).candidates) == 1


def test_saved_results_are_whole(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    detection = run(world[0], models)
    detection.save(tmp_path / "out")
    back = t3.load_candidates(tmp_path / "out" / "candidates.star")
    np.testing.assert_allclose(back.centre_zyx, detection.candidates.centre_zyx, atol=0.01)
    np.testing.assert_array_equal(t3.read(tmp_path / "out" / "membrane.mrc").data, detection.membrane)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["counts"]["candidates"] == 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"candidates.csv", "candidates.mod", "candidates.tbl"} <= names
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        detection.save(tmp_path / "file")


# --------------------------------------------------------------------------------------------- bad input


def failing_cases(world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path) -> dict[str, Any]:
    """Name: (arguments of detect, error, words its sentence must hold)."""
    tomogram, _, membrane = world
    data = tomogram.data
    spoilt = data.copy()
    spoilt[3, 5, 7] = np.nan
    infinite = data.copy()
    infinite[20, 0, 0] = np.inf
    (tmp_path / "truncated.mrc").write_bytes(b"")
    t3.write(tmp_path / "short.mrc", data, VOXEL)
    content = (tmp_path / "short.mrc").read_bytes()
    (tmp_path / "short.mrc").write_bytes(content[: len(content) // 2])
    t3.write(tmp_path / "complex.mrc", data, VOXEL)
    content = bytearray((tmp_path / "complex.mrc").read_bytes())
    content[12:16] = (4).to_bytes(4, "little")
    (tmp_path / "complex.mrc").write_bytes(content)
    t3.write(tmp_path / "unknown.mrc", data, VOXEL)
    content = bytearray((tmp_path / "unknown.mrc").read_bytes())
    content[40:52] = bytes(12)
    (tmp_path / "unknown.mrc").write_bytes(content)
    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    size = {"voxel_size_angstrom": VOXEL}
    return {
        "missing file": ({"tomogram": tmp_path / "none.mrc"}, ReadError, "none.mrc"),
        "empty file": ({"tomogram": tmp_path / "truncated.mrc"}, ReadError, "empty"),
        "short file": ({"tomogram": tmp_path / "short.mrc"}, ReadError, "short.mrc"),
        "wrong mode": ({"tomogram": tmp_path / "complex.mrc"}, ReadError, "complex"),
        "voxel size 0": ({"tomogram": tmp_path / "unknown.mrc"}, VoxelSizeError, "voxel_size_angstrom"),
        "no voxel size": ({"tomogram": data}, VoxelSizeError, "voxel_size_angstrom"),
        "voxel size given as 0": ({"tomogram": data, "voxel_size_angstrom": 0}, VoxelSizeError, "0"),
        "two axes": ({"tomogram": data[0], **size}, InputError, "3 axes"),
        "no axis": ({"tomogram": np.float32(1), **size}, InputError, "float32"),
        "a list": ({"tomogram": [[1.0]], **size}, InputError, "list"),
        "no voxels": ({"tomogram": data[:0], **size}, InputError, "at least one voxel"),
        "complex values": ({"tomogram": data.astype(complex), **size}, InputError, "real numbers"),
        "NaN": ({"tomogram": spoilt, **size}, InputError, "(3, 5, 7)"),
        "infinity": ({"tomogram": infinite, **size}, InputError, "(20, 0, 0)"),
        "constant": ({"tomogram": np.zeros_like(data), **size}, InputError, "constant"),
        "smaller than a window": ({"tomogram": data[:, :30], **size}, InputError, "window"),
        "smaller than a window in nm": (
            {"tomogram": data, "voxel_size_angstrom": 3.0},
            InputError,
            "window",
        ),
        "empty mask": ({"tomogram": tomogram, "membrane": np.zeros_like(membrane)}, InputError, "empty"),
        "mask of another shape": (
            {"tomogram": tomogram, "membrane": membrane[:, :, 1:]},
            InputError,
            "(24, 120, 131)",
        ),
        "mask file missing": (
            {"tomogram": tomogram, "membrane": tmp_path / "mask.mrc"},
            ReadError,
            "mask.mrc",
        ),
        "model missing": ({"tomogram": tomogram, "classifier": tmp_path / "no.pt"}, ModelError, "no.pt"),
        "model is text": (
            {"tomogram": tomogram, "classifier": tmp_path / "text.pt"},
            ModelError,
            "TorchScript",
        ),
        "model is weights": (
            {"tomogram": tomogram, "segmenter": tmp_path / "state.pt"},
            ModelError,
            "state dict",
        ),
        "device that is none": ({"tomogram": tomogram, "device": "fpga"}, DeviceError, "fpga"),
    }


NAMES = [
    "missing file",
    "empty file",
    "short file",
    "wrong mode",
    "voxel size 0",
    "no voxel size",
    "voxel size given as 0",
    "two axes",
    "no axis",
    "a list",
    "no voxels",
    "complex values",
    "NaN",
    "infinity",
    "constant",
    "smaller than a window",
    "smaller than a window in nm",
    "empty mask",
    "mask of another shape",
    "mask file missing",
    "model missing",
    "model is text",
    "model is weights",
    "device that is none",
]


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_told_in_one_sentence(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path, name: str
) -> None:
    arguments, error, words = failing_cases(world, tmp_path)[name]
    with pytest.raises(error) as caught:
        run(**{"models": models, **arguments})
    assert isinstance(caught.value, T3Error)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_told(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    with pytest.raises(DeviceError, match="cuda"):
        run(world[0], models, device="cuda")


def test_models_that_are_not_what_they_should_be_are_refused(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    swapped = {"segmenter": models["classifier"], "classifier": models["segmenter"]}
    with pytest.raises(ModelError, match="not a"):
        run(world[0], swapped)

    class NotANumber(nn.Module):
        """Finite on what a probe shows it, NaN on dark particles."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_classifier()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + 0 * torch.sqrt(x[:, :, 25, 25] + 3.0)

    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(NotANumber(), tmp_path / "nan.pt", metadata)
    with pytest.raises(ModelError, match="NaN"):
        run(world[0].data[12:13], {**models, "classifier": tmp_path / "nan.pt"}, voxel_size_angstrom=VOXEL)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="slab_slices"):
        DetectConfig(slab_slices=0)


# ----------------------------------------------------------------------------------------------- package


def test_public_names_are_functions_however_modules_were_imported() -> None:
    code = (
        "import t3ssfast as t3\n"
        "from t3ssfast.detect import Detection\n"
        "from t3ssfast.preselect import learn_rule\n"
        "import t3ssfast.simulate, t3ssfast.evaluate, t3ssfast.export\n"
        "for name in t3.__all__: getattr(t3, name)\n"
        "for name in ('detect', 'preselect', 'simulate', 'evaluate', 'export'):\n"
        "    assert callable(getattr(t3, name)), name\n"
        "assert t3.Detection is Detection\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light() -> None:
    code = (
        "import sys, t3ssfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'detect', 'read', '__version__'} <= set(dir(t3ssfast))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no_such_name"):
        t3.no_such_name  # noqa: B018


# ------------------------------------------------------------------------------------------ command line


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_writes_results_and_pictures(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    t3.write(tmp_path / "TS_01.mrc", world[0].data, VOXEL)
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"]]
    result = call("detect", tmp_path / "TS_01.mrc", "-o", tmp_path / "out", "--device", "cpu", *given)
    assert result.exit_code == 0, result.output
    assert "3 candidates" in result.output
    assert "TS_01" in (tmp_path / "out" / "candidates.star").read_text()
    for name in ("candidates.png", "gallery.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_several_tomograms_get_a_folder_each_and_json_is_json(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    for name in ("TS_01.mrc", "TS_02.rec"):
        t3.write(tmp_path / name, world[0].data, VOXEL)
        t3.write(tmp_path / f"mask_{name}", world[2], VOXEL)
    arguments = [tmp_path / "TS_01.mrc", tmp_path / "TS_02.rec", "-o", tmp_path / "out", "--no-png"]
    for name in ("TS_01.mrc", "TS_02.rec"):
        arguments += ["--membrane", tmp_path / f"mask_{name}"]
    options = ["--classifier", models["classifier"], "--json", "--threshold", 0.4, "--memory-budget", 0.5]
    result = call("detect", *arguments, *options, "--threads", 1, "--contrast", "dark")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [len(entry["candidates"]) for entry in report] == [3, 3]
    assert set(report[0]["candidates"][0]) >= {"z", "y", "x", "score", "rot", "tilt", "psi"}
    for name in ("TS_01", "TS_02"):
        assert (tmp_path / "out" / name / "provenance.json").is_file()
        assert not (tmp_path / "out" / name / "membrane.mrc").exists()
        assert not (tmp_path / "out" / name / "candidates.png").exists()


def test_a_bad_tomogram_does_not_keep_the_others_from_being_searched(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    nan = np.array(world[0].data)
    nan[1, 2, 3] = np.nan
    t3.write(tmp_path / "nan.mrc", nan, VOXEL)
    t3.write(tmp_path / "good.mrc", world[0].data, VOXEL)
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "good.mrc").read_bytes()[:5000])
    names = [tmp_path / f"{name}.mrc" for name in ("none", "cut", "nan", "good")]
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"], "--contrast", "dark"]
    result = call("detect", *names, "-o", tmp_path / "out", *given, "--no-png", "--json", "--threads", 1)
    assert result.exit_code == 1
    *sentences, last = result.stderr.splitlines()
    assert [sentence.split(":")[0] for sentence in sentences] == ["error"] * 3
    assert all(name.name in sentence for name, sentence in zip(names, sentences, strict=False))
    assert last == "3 of 4 tomograms could not be searched; the others are."
    assert [Path(entry["tomogram"]).name for entry in json.loads(result.stdout)] == ["good.mrc"]
    assert (tmp_path / "out" / "good" / "provenance.json").is_file()
    assert not (tmp_path / "out" / "cut").exists()


def test_the_command_fails_in_one_sentence_and_leaves_nothing(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    t3.write(tmp_path / "a.mrc", world[0].data, VOXEL)
    (tmp_path / "b").mkdir()
    t3.write(tmp_path / "b" / "a.rec", world[0].data, VOXEL)
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"]]
    out = ["-o", tmp_path / "out"]
    for arguments, words in [
        ([tmp_path / "none.mrc", *given], "none.mrc"),
        ([tmp_path / "a.mrc", *given, "--device", "fpga"], "fpga"),
        ([tmp_path / "a.mrc", *given, "--contrast", "blue"], "contrast"),
        ([tmp_path / "a.mrc", "--classifier", tmp_path / "a.mrc"], "TorchScript"),
        ([tmp_path / "a.mrc", tmp_path / "b" / "a.rec", *given], "'a'"),
        ([tmp_path / "a.mrc", tmp_path / "a.mrc", *given, "--membrane", tmp_path / "a.mrc"], "masks"),
    ]:
        result = call("detect", *arguments, *out)
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert result.output.count("error:") == 1
        assert not (tmp_path / "out").exists()
    assert call("detect", tmp_path / "a.mrc").exit_code == 2


def test_the_toy_particles_lie_between_the_membranes(
    world: tuple[Tomogram, Candidates, np.ndarray],
) -> None:
    """The toy itself: particles are where a T3SS would be."""
    _, truth, membrane = world
    middle = (np.array(membrane.shape[1:]) - 1) / 2
    radius = np.linalg.norm(truth.centre_zyx[:, 1:] - middle, axis=1)
    np.testing.assert_allclose(radius, MIDDLE, atol=0.01)
    assert INNER < MIDDLE
