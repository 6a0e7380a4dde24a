"""The preflight: every way in which a tomogram is unfit for a run is told before the run."""

from __future__ import annotations

import errno
import gzip
import json
import os

import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE
from typer.testing import CliRunner

from t3ssfast.cli import app
from t3ssfast.io import volume_layout, write
from toy import VOXEL, save_toy_models, toy_tomogram


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a tomogram, its membrane and two models, and the options that name the models."""
    folder = tmp_path_factory.mktemp("doctor")
    tomogram, _, membrane = toy_tomogram((10, 120, 132))
    write(folder / "toy.mrc", tomogram.data, VOXEL)
    write(folder / "membrane.mrc", membrane, VOXEL)
    segmenter, classifier = save_toy_models(folder)
    return folder, ("--segmenter", str(segmenter), "--classifier", str(classifier))


def diagnose(world, name, *options):
    """Exit code, and the checks of one file by name."""
    folder, models = world
    result = CliRunner().invoke(app, ["doctor", str(folder / name), *models, *map(str, options), "--json"])
    assert result.exit_code in (0, 1), result.output
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    (checks,) = report["files"].values()
    for check in checks:
        assert all(check[key].isprintable() for key in ("name", "value", "note"))
    return result.exit_code, {check["name"]: check for check in checks}


def edited(world, name, array, **fields):
    """A file like the toy's with other values, or another header."""
    folder, _ = world
    write(folder / name, array, VOXEL)
    content = bytearray((folder / name).read_bytes())
    header = np.frombuffer(content, HEADER_DTYPE, 1)[0:1]
    for key, value in fields.items():
        header[key] = value
    (folder / name).write_bytes(bytes(content))
    return name


def toy_values(world):
    folder, _ = world
    return np.fromfile(folder / "toy.mrc", "<f4", offset=1024).reshape(10, 120, 132)


def test_a_tomogram_that_is_fit(world):
    code, checks = diagnose(world, "toy.mrc")
    assert code == 0
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["voxel size"]["value"] == "13.6 A"
    assert checks["size (z, y, x)"]["value"] == "10 x 120 x 132"
    assert checks["values"]["value"] == "float32 (mode 2)"
    assert checks["contrast"]["value"] == "protein is dark"
    assert checks["time"]["value"].startswith("about ")
    assert "windows judged" in checks["time"]["note"]
    folder, models = world
    table = CliRunner().invoke(app, ["doctor", str(folder / "toy.mrc"), *models])
    assert table.exit_code == 0
    assert "protein is dark" in table.output


def test_what_cannot_be_read_is_told(world):
    folder, _ = world
    (folder / "cut.mrc").write_bytes((folder / "toy.mrc").read_bytes()[:5000])
    for name, words in (("missing.mrc", "no file"), ("cut.mrc", "truncated")):
        code, checks = diagnose(world, name)
        assert code == 1
        assert words in checks["file"]["note"]


def not_a_file(folder, name):
    os.mkfifo(folder / name)


def a_loop(folder, name):
    (folder / "other.mrc").symlink_to(folder / name)
    (folder / name).symlink_to(folder / "other.mrc")


def of_size(promised):
    def damaged(folder, name):
        content = bytearray((folder.parent / "toy.mrc").read_bytes())
        np.frombuffer(content, HEADER_DTYPE, 1)["nsymbt"] = promised
        (folder / name).write_bytes(content)

    return damaged


PAGE = b"\n<!DOCTYPE html>\n<html><body>Log in first</body></html>\n"
STRANGE = {
    "nothing there": (lambda folder, name: None, "no file"),
    "a folder": (lambda folder, name: (folder / name).mkdir(), "folder"),
    "an empty file": (lambda folder, name: (folder / name).touch(), "empty"),
    "a short text": (lambda folder, name: (folder / name).write_text("hello"), "5 bytes"),
    "a text": (lambda folder, name: (folder / name).write_text("hello\n" * 400), "not an MRC file"),
    "a web page": (lambda folder, name: (folder / name).write_bytes(PAGE * 30), "web page"),
    "a short web page": (lambda folder, name: (folder / name).write_bytes(PAGE), "web page"),
    "a packed web page": (lambda folder, name: (folder / name).write_bytes(gzip.compress(PAGE)), "web page"),
    "a header too large": (of_size(2_000_000_000), "2000000000 are missing"),
    "a negative header": (of_size(-1), "damaged"),
    "a link in a circle": (a_loop, "back to itself"),
    "a link to nothing": (lambda folder, name: (folder / name).symlink_to("gone.mrc"), "link to gone.mrc"),
    "a pipe": (not_a_file, "regular file"),
    "a file in a file": (lambda folder, name: None, "Not a directory"),
}


@pytest.mark.parametrize("name", ["a.mrc", "new\nline \N{SNOWMAN} [red].mrc", os.fsdecode(b"\xff\xfe.mrc")])
@pytest.mark.parametrize("what", STRANGE)
def test_whatever_is_given_for_a_tomogram_is_one_sentence(world, tmp_path, what, name):
    """By `doctor` and by `detect`, with no traceback, and nothing is waited for."""
    folder, models = world
    make, words = STRANGE[what]
    inside = folder / tmp_path.name
    inside.mkdir()
    make(inside, name)
    path = folder / "toy.mrc" / name if what == "a file in a file" else inside / name
    code, checks = diagnose(world, path)
    assert code == 1
    assert words in checks["file"]["note"]
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert checks["file"]["note"] in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_told(world, tmp_path, monkeypatch):
    folder, models = world
    path = folder / "toy.mrc"
    really = os.access
    monkeypatch.setattr(os, "access", lambda file, *mode: str(file) != str(path) and really(file, *mode))
    monkeypatch.setattr("builtins.open", _forbidden(path, open))
    code, checks = diagnose(world, "toy.mrc")
    assert code == 1
    assert "Permission denied" in checks["file"]["note"]
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 1
    assert "Permission denied; check the file and its permissions." in result.stderr


def _forbidden(path, really):
    """`open` as somebody else than the owner, who may be root, sees it."""

    def opened(file, *arguments, **options):
        if file == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return really(file, *arguments, **options)

    return opened


def test_a_name_that_is_no_text_is_searched(world, tmp_path):
    """Linux allows any bytes in a name; a table holds text."""
    folder, models = world
    path = tmp_path / os.fsdecode(b"TS\xff\xfe1.mrc")
    path.write_bytes((folder / "toy.mrc").read_bytes())
    assert diagnose(world, path)[0] == 0
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 0, result.output
    assert "TS__1" in (tmp_path / "out" / "candidates.star").read_text()


def test_voxel_sizes(world):
    name = edited(world, "unknown.mrc", toy_values(world), cella=(0, 0, 0))
    code, checks = diagnose(world, name)
    assert code == 1
    assert checks["voxel size"]["status"] == "FAILED"
    assert "--voxel-size" in checks["voxel size"]["note"]
    assert checks["grey values"]["status"] == "ok", "the rest is looked at all the same"
    code, checks = diagnose(world, name, "--voxel-size", VOXEL)
    assert code == 0
    assert checks["voxel size"]["note"] == "as given"
    code, checks = diagnose(world, "toy.mrc", "--voxel-size", 4 * VOXEL)
    assert checks["classifier"]["status"] == "note"
    assert "4.0 times" in checks["classifier"]["note"]


def test_axes_modes_and_signs(world):
    values = toy_values(world)
    name = edited(world, "turned.mrc", values, mapc=1, mapr=3, maps=2)
    checks = diagnose(world, name)[1]
    assert checks["axes"]["status"] == "note"
    assert checks["axes"]["value"] == "xzy"
    smooth = np.add.outer(np.linspace(0, 250, 10), np.add.outer(np.zeros(120), np.linspace(0, 5, 132)))
    name = edited(world, "bytes.mrc", smooth.astype(np.uint8).view(np.int8))
    assert diagnose(world, name)[1]["values"]["status"] == "ok", "no byte crosses the sign"
    wrapped = (120 + np.round(8 * np.sin(np.arange(132)))).astype(np.uint8)
    name = edited(world, "unsigned.mrc", np.broadcast_to(wrapped, (10, 120, 132)).view(np.int8))
    checks = diagnose(world, name)[1]
    assert checks["values"]["status"] == "note"
    assert "unsigned" in checks["values"]["note"]


def test_values_that_cannot_be_searched(world):
    values = toy_values(world).copy()
    values[0, 3, 4] = np.nan
    values[-1, 5, 6] = np.inf
    code, checks = diagnose(world, edited(world, "nan.mrc", values))
    assert code == 1
    assert checks["NaN or infinity"]["value"] == "2"
    assert "time" not in checks, "no slice is searched once it is known to fail"
    code, checks = diagnose(world, edited(world, "flat.mrc", np.full((10, 120, 132), 3, np.int16)))
    assert code == 1
    assert checks["grey values"]["value"] == "all 3"


def test_contrast(world):
    code, checks = diagnose(world, edited(world, "light.mrc", -toy_values(world)))
    assert code == 0
    assert checks["contrast"]["value"] == "protein is light"
    noise = np.random.default_rng(0).normal(size=(10, 120, 132)).astype(np.float32)
    assert diagnose(world, edited(world, "noise.mrc", noise))[1]["contrast"]["status"] == "note"
    assert diagnose(world, "noise.mrc", "--contrast", "dark")[1]["contrast"]["status"] == "ok"


def test_memory(world):
    assert diagnose(world, "toy.mrc", "--memory-budget", 0.5)[1]["memory"]["value"] == "about 0.5 GiB"
    checks = diagnose(world, "toy.mrc", "--memory-budget", 100_000)[1]
    assert checks["memory"]["status"] == "note"
    assert "--memory-budget" in checks["memory"]["note"]


def test_membrane_masks(world):
    folder, _ = world
    assert diagnose(world, "toy.mrc", "--membrane", folder / "membrane.mrc")[0] == 0
    membrane = np.fromfile(folder / "membrane.mrc", "i1", offset=1024).reshape(10, 120, 132)
    wrong = {
        "smaller.mrc": (membrane[:, :-1], "FAILED", "size"),
        "empty.mrc": (membrane * 0, "FAILED", "empty"),
        "labels.mrc": (membrane * 7, "note", "0 and 1"),
    }
    for name, (array, status, words) in wrong.items():
        write(folder / name, array, VOXEL)
        code, checks = diagnose(world, "toy.mrc", "--membrane", folder / name)
        assert code == (1 if status == "FAILED" else 0)
        assert checks["membrane mask"]["status"] == status
        assert words in checks["membrane mask"]["note"]
    code, checks = diagnose(world, "toy.mrc", "--membrane", folder / "none.mrc")
    assert code == 1
    result = CliRunner().invoke(
        app, ["doctor", str(folder / "toy.mrc"), str(folder / "toy.mrc"), "--membrane", "one.mrc"]
    )
    assert result.exit_code == 1
    assert "one for each" in result.output


def test_names_in_a_tomograms_star(world):
    folder, _ = world
    star = folder / "tomograms.star"
    star.write_text("data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nTS_01 300\ntoy 300\n")
    checks = diagnose(world, "toy.mrc", "--tomograms", star)[1]
    assert checks["name in tomograms"]["status"] == "ok"
    star.write_text("data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nTS_01 300\nTS_02 300\n")
    code, checks = diagnose(world, "toy.mrc", "--tomograms", star)
    assert code == 1
    assert "'TS_01'" in checks["name in tomograms"]["note"]
    assert diagnose(world, "toy.mrc", "--tomograms", folder / "missing.star")[0] == 1


def test_models(world):
    folder, _ = world
    code, checks = diagnose(world, "toy.mrc", "--classifier", folder / "segmenter.pt")
    assert code == 1
    assert "is a segmenter" in checks["classifier"]["note"]
    save_toy_models(folder, window_px=50, window_nm=68.0, voxel_size_angstrom=None)
    assert "own voxel size" in diagnose(world, "toy.mrc")[1]["classifier"]["note"]
    save_toy_models(folder)
    code, checks = diagnose(world, edited(world, "small.mrc", toy_values(world)[:, :30, :40]))
    assert code == 1
    assert "window" in checks["trial"]["note"]


def test_bad_options_are_one_sentence(world):
    folder, models = world
    result = CliRunner().invoke(app, ["doctor", str(folder / "toy.mrc"), *models, "--contrast", "grey"])
    assert result.exit_code == 1
    assert "contrast" in result.output


def test_layouts(world, data):
    folder, _ = world
    found = volume_layout(folder / "toy.mrc")
    assert (found.format, found.mode, found.axes) == ("MRC", 2, "xyz")
    assert volume_layout(data / "emd_3197.map.gz").format == "MRC, compressed"
    assert volume_layout(data / "blobs.rec").imod_stamp
    assert volume_layout(folder).format == "OME-Zarr"
