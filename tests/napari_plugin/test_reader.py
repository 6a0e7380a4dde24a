"""The reader without napari: which paths it takes, and the layers it makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import yaml

import t3ssfast as t3
from t3ssfast.errors import ReadError
from t3ssfast.napari_plugin import reader
from t3ssfast.napari_plugin.layers import METADATA_KEY
from zarr_files import named_axes, write_image

PLUGIN = reader.__file__.replace("reader.py", "napari.yaml")


@pytest.fixture
def results(tmp_path, make_candidates):
    """Return a folder with the results of two tomograms, which lie beside it."""
    rng = np.random.default_rng(5)
    for name in ("TS_1", "TS_2"):
        volume = rng.normal(size=(12, 40, 50)).astype(np.float32)
        t3.write(tmp_path / f"{name}.mrc", volume, 13.6)
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        found = make_candidates(6, centre_zyx=rng.uniform(1, 11, (6, 3)), tomogram_shape=volume.shape)
        t3.export(replace(found, tomogram_name=name), folder / "candidates.csv", "csv")
        t3.write(folder / "membrane.mrc", (volume > 1).astype(np.uint8), 13.6)
        described = {"name": name, "path": str(tmp_path / f"{name}.mrc"), "voxel_size_angstrom": 13.6}
        provenance = {"input": {**described, "shape_zyx": [12, 40, 50]}, "contrast": {"sign": -1}}
        (folder / "provenance.json").write_text(json.dumps(provenance))
    return tmp_path / "results"


def read_layers(path):
    function = reader.get_reader(str(path))
    assert function is not None
    return function([str(path)])


def test_a_folder_of_results_becomes_four_layers(results):
    layers = read_layers(results / "TS_2")
    assert [kind for *_, kind in layers] == ["image", "labels", "points", "vectors"]
    assert [options["name"] for _, options, _ in layers] == ["TS_2", "membrane", "candidates", "axes"]
    for _, options, _ in layers:
        assert options["scale"] == pytest.approx((1.36,) * 3)
    image, membrane, points, vectors = (data for data, *_ in layers)
    np.testing.assert_array_equal(membrane, image > 1)
    assert points.shape == (6, 3)
    np.testing.assert_array_equal(vectors[:, 0], points)
    # Axes of 45 nm.
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 1], axis=1) * 1.36, 45, rtol=1e-5)
    features = layers[2][1]["features"]
    assert list(features)[:3] == ["score", "kind", "verdict"]
    assert (np.diff(features["score"]) <= 0).all()
    assert layers[0][1]["metadata"][METADATA_KEY]["contrast_sign"] == -1


def test_a_folder_of_folders_opens_the_first_and_names_all(results):
    layers = read_layers(results)
    assert layers[0][1]["name"] == "TS_1"
    named = layers[2][1]["metadata"][METADATA_KEY]["results"]
    assert [one.name for one in named] == ["TS_1", "TS_2"]


def test_results_without_their_tomogram_show_the_candidates(results, tmp_path):
    (tmp_path / "TS_1.mrc").unlink()
    with pytest.warns(UserWarning, match=r"TS_1: the tomogram is not"):
        layers = read_layers(results / "TS_1")
    assert [kind for *_, kind in layers] == ["points", "vectors"]


@pytest.mark.parametrize("name", ["a.star", "a.csv", "a.tbl", "a.mod", "a.coords", "run"])
def test_candidate_files_of_every_format(tmp_path, make_candidates, name):
    candidates = make_candidates(4)
    format = {"run": "copick", "a.coords": "coords"}.get(name) or t3.io.particles.format_of(name)
    t3.export(candidates, tmp_path / name, format)
    with warnings.catch_warnings():
        # Not every format states the voxel size.
        warnings.simplefilter("ignore", UserWarning)
        points, vectors = read_layers(tmp_path / name)
    nm = np.array(points[1]["scale"])
    size = 1.0 if nm[0] == 1 else 1.36
    np.testing.assert_allclose(points[0] * nm, candidates.centre_zyx * size, atol=0.02)
    assert vectors[0].shape == (4, 2, 3)


@pytest.mark.parametrize("suffix", [".json", ".star", ".csv"])
def test_curation_files_keep_their_verdicts(tmp_path, make_candidates, suffix):
    label = np.array(["accepted", "rejected", "unsure", ""])
    one = make_candidates(4, label=label)
    t3.save_curation([one, replace(one, tomogram_name="TS_8")], tmp_path / f"verdicts{suffix}")
    layers = read_layers(tmp_path / f"verdicts{suffix}")
    names = [options["name"] for _, options, _ in layers]
    assert names == [f"{kind} of {name}" for name in ("TS_007", "TS_8") for kind in ("candidates", "axes")]
    features, colours = (layers[0][1][key] for key in ("features", "border_color"))
    assert features["verdict"].tolist() == label.tolist()
    assert len(np.unique(colours, axis=0)) == 4


def test_tomograms_have_their_voxel_size(tmp_path):
    volume = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    for name in ("a.mrc", "a.zarr"):
        if name == "a.mrc":
            t3.write(tmp_path / name, volume, 7.5)
        else:
            scale = {"type": "scale", "scale": [0.75] * 3}
            write_image(tmp_path / name, volume, named_axes("zyx"), "0.4", [scale])
        ((data, options, kind),) = read_layers(tmp_path / name)
        assert (kind, options["name"]) == ("image", "a")
        assert options["scale"] == pytest.approx((0.75,) * 3)
        np.testing.assert_array_equal(np.asarray(data), volume)
        low, high = options["contrast_limits"]
        assert volume.min() <= low < high <= volume.max()


def test_an_unknown_voxel_size_is_reported(tmp_path):
    import mrcfile

    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.zeros((3, 4, 5), np.float32))
    with pytest.warns(UserWarning, match=r"a\.mrc: the voxel size is unknown"):
        ((_, options, _),) = read_layers(tmp_path / "a.mrc")
    assert options["scale"] == (1.0, 1.0, 1.0)


def test_what_is_not_ours_is_left_to_others(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "candidates.txt").write_text("no results")
    (tmp_path / "notes.docx").write_text("text")
    (tmp_path / "no_suffix").write_text("text")
    for name in ("photos", "notes.docx", "no_suffix", "missing"):
        assert reader.get_reader(str(tmp_path / name)) is None
    assert reader.get_reader([str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc")]) is None
    assert reader.get_reader([]) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.star").write_text("nothing of a star file")
    with pytest.raises(ReadError, match=r"a\.star"):
        read_layers(tmp_path / "a.star")


def test_the_manifest_names_what_exists():
    from importlib import import_module
    from importlib.util import find_spec
    from pathlib import Path

    manifest = yaml.safe_load(Path(PLUGIN).read_text(encoding="utf-8"))
    assert manifest["name"] == "t3ssfast"
    contributions = manifest["contributions"]
    names = {command["id"]: command["python_name"] for command in contributions["commands"]}
    for python_name in names.values():
        module, attribute = python_name.split(":")
        assert find_spec(module) is not None
        if ".widgets" not in module:
            assert hasattr(import_module(module), attribute)
    for kind in ("readers", "sample_data", "widgets"):
        for entry in contributions.get(kind, []):
            assert entry["command"] in names


def test_the_reader_imports_neither_napari_nor_torch():
    code = (
        "import sys; from t3ssfast.napari_plugin import reader, sample; "
        "print([name for name in ('napari', 'qtpy', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
