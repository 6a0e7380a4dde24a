"""`t3ssfast doctor FILE`: problems of a tomogram, its mask and the models are reported before a run."""

from __future__ import annotations

import errno
import gzip
import json
import os

import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.io import SignSource, volume_layout, write
from toy import VOXEL, save_toy_models, toy_tomogram


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    """A folder with a tomogram, its membrane mask and two models, and the options that name the models."""
    folder = tmp_path_factory.mktemp("doctor")
    tomogram, _, membrane = toy_tomogram((10, 120, 132))
    write(folder / "toy.mrc", tomogram.data, VOXEL)
    write(folder / "membrane.mrc", membrane, VOXEL)
    segmenter, classifier = save_toy_models(folder)
    return folder, ("--segmenter", str(segmenter), "--classifier", str(classifier))


def run_doctor(toy_folder, name, *options):
    """Exit code, and the checks of one file by their names."""
    folder, models = toy_folder
    result = CliRunner().invoke(app, ["doctor", str(folder / name), *models, *map(str, options), "--json"])
    assert result.exit_code in (0, 1), result.output
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    (checks,) = report["files"].values()
    for check in checks:
        assert all(check[key].isprintable() for key in ("name", "value", "note"))
    return result.exit_code, {check["name"]: check for check in checks}


def write_variant(toy_folder, name, array, **fields):
    """Write a tomogram with other values and header fields; returns its name."""
    folder, _ = toy_folder
    write(folder / name, array, VOXEL)
    content = bytearray((folder / name).read_bytes())
    header = np.frombuffer(content, HEADER_DTYPE, 1)[0:1]
    for key, value in fields.items():
        header[key] = value
    (folder / name).write_bytes(bytes(content))
    return name


def toy_values(toy_folder):
    folder, _ = toy_folder
    return np.fromfile(folder / "toy.mrc", "<f4", offset=1024).reshape(10, 120, 132)


def test_good_tomogram(toy_folder):
    code, checks = run_doctor(toy_folder, "toy.mrc")
    assert code == 0
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["voxel size"]["value"] == "13.6 A"
    assert checks["size (z, y, x)"]["value"] == "10 x 120 x 132"
    assert checks["values"]["value"] == "float32 (mode 2)"
    assert checks["contrast"]["value"] == "protein is dark"
    assert checks["time"]["value"].startswith("about ")
    assert "windows classified" in checks["time"]["note"]
    folder, models = toy_folder
    table = CliRunner().invoke(app, ["doctor", str(folder / "toy.mrc"), *models])
    assert table.exit_code == 0
    assert "protein is dark" in table.output


def test_missing_and_truncated_files(toy_folder):
    folder, _ = toy_folder
    (folder / "cut.mrc").write_bytes((folder / "toy.mrc").read_bytes()[:5000])
    for name, words in (("missing.mrc", "no file"), ("cut.mrc", "truncated")):
        code, checks = run_doctor(toy_folder, name)
        assert code == 1
        assert words in checks["file"]["note"]


def make_pipe(folder, name):
    os.mkfifo(folder / name)


def make_link_loop(folder, name):
    (folder / "other.mrc").symlink_to(folder / name)
    (folder / name).symlink_to(folder / "other.mrc")


def write_header_size(nsymbt):
    """Return a function that writes a tomogram whose header states this size of the extended header."""

    def write_file(folder, name):
        content = bytearray((folder.parent / "toy.mrc").read_bytes())
        np.frombuffer(content, HEADER_DTYPE, 1)["nsymbt"] = nsymbt
        (folder / name).write_bytes(content)

    return write_file


WEB_PAGE = b"\n<!DOCTYPE html>\n<html><body>Log in first</body></html>\n"
# Function that makes the file, and words of the error message.
UNUSABLE = {
    "missing": (lambda folder, name: None, "no file"),
    "folder": (lambda folder, name: (folder / name).mkdir(), "folder"),
    "empty file": (lambda folder, name: (folder / name).touch(), "empty"),
    "short text": (lambda folder, name: (folder / name).write_text("hello"), "5 bytes"),
    "text": (lambda folder, name: (folder / name).write_text("hello\n" * 400), "not an MRC file"),
    "web page": (lambda folder, name: (folder / name).write_bytes(WEB_PAGE * 30), "web page"),
    "short web page": (lambda folder, name: (folder / name).write_bytes(WEB_PAGE), "web page"),
    "compressed web page": (
        lambda folder, name: (folder / name).write_bytes(gzip.compress(WEB_PAGE)),
        "web page",
    ),
    "too large extended header": (write_header_size(2_000_000_000), "2000000000 are missing"),
    "negative extended header": (write_header_size(-1), "damaged"),
    "link loop": (make_link_loop, "back to itself"),
    "broken link": (lambda folder, name: (folder / name).symlink_to("gone.mrc"), "link to gone.mrc"),
    "pipe": (make_pipe, "regular file"),
    "path below a file": (lambda folder, name: None, "Not a directory"),
}


@pytest.mark.parametrize("name", ["a.mrc", "new\nline \N{SNOWMAN} [red].mrc", os.fsdecode(b"\xff\xfe.mrc")])
@pytest.mark.parametrize("what", UNUSABLE)
def test_unusable_file_is_one_sentence(toy_folder, tmp_path, what, name):
    """`doctor` and `detect` report it without a traceback and without waiting."""
    folder, models = toy_folder
    make, words = UNUSABLE[what]
    inside = folder / tmp_path.name
    inside.mkdir()
    make(inside, name)
    path = folder / "toy.mrc" / name if what == "path below a file" else inside / name
    code, checks = run_doctor(toy_folder, path)
    assert code == 1
    assert words in checks["file"]["note"]
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert checks["file"]["note"] in result.stderr
    assert not (tmp_path / "out").exists()


def test_file_without_read_permission(toy_folder, tmp_path, monkeypatch):
    folder, models = toy_folder
    path = folder / "toy.mrc"
    access = os.access
    monkeypatch.setattr(os, "access", lambda file, *mode: str(file) != str(path) and access(file, *mode))
    monkeypatch.setattr("builtins.open", open_without_permission(path, open))
    code, checks = run_doctor(toy_folder, "toy.mrc")
    assert code == 1
    assert "Permission denied" in checks["file"]["note"]
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 1
    assert "Permission denied; check the file and its permissions." in result.stderr


def open_without_permission(path, original):
    """Return an `open` that refuses one file; file modes would not stop root."""

    def refuse(file, *arguments, **options):
        if file == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return original(file, *arguments, **options)

    return refuse


def test_file_name_that_is_not_utf8(toy_folder, tmp_path):
    """Linux allows any bytes in a file name; tables hold text."""
    folder, models = toy_folder
    path = tmp_path / os.fsdecode(b"TS\xff\xfe1.mrc")
    path.write_bytes((folder / "toy.mrc").read_bytes())
    assert run_doctor(toy_folder, path)[0] == 0
    result = CliRunner().invoke(app, ["detect", str(path), "-o", str(tmp_path / "out"), *models])
    assert result.exit_code == 0, result.output
    assert "TS__1" in (tmp_path / "out" / "candidates.star").read_text()


def test_voxel_sizes(toy_folder):
    name = write_variant(toy_folder, "unknown.mrc", toy_values(toy_folder), cella=(0, 0, 0))
    code, checks = run_doctor(toy_folder, name)
    assert code == 1
    assert checks["voxel size"]["status"] == "FAILED"
    assert "--voxel-size" in checks["voxel size"]["note"]
    assert checks["grey values"]["status"] == "ok", "the other checks are made"
    code, checks = run_doctor(toy_folder, name, "--voxel-size", VOXEL)
    assert code == 0
    assert checks["voxel size"]["note"] == "as given"
    code, checks = run_doctor(toy_folder, "toy.mrc", "--voxel-size", 4 * VOXEL)
    assert checks["classifier"]["status"] == "note"
    assert "a factor of 4.0" in checks["classifier"]["note"]


def test_axis_order_and_signed_bytes(toy_folder):
    values = toy_values(toy_folder)
    name = write_variant(toy_folder, "turned.mrc", values, mapc=1, mapr=3, maps=2)
    checks = run_doctor(toy_folder, name)[1]
    assert checks["axes"]["status"] == "note"
    assert checks["axes"]["value"] == "xzy"
    smooth = np.add.outer(np.linspace(0, 250, 10), np.add.outer(np.zeros(120), np.linspace(0, 5, 132)))
    name = write_variant(toy_folder, "bytes.mrc", smooth.astype(np.uint8).view(np.int8))
    assert run_doctor(toy_folder, name)[1]["values"]["status"] == "ok", "no wrap between neighbours"
    wrapped = (120 + np.round(8 * np.sin(np.arange(132)))).astype(np.uint8)
    name = write_variant(toy_folder, "unsigned.mrc", np.broadcast_to(wrapped, (10, 120, 132)).view(np.int8))
    checks = run_doctor(toy_folder, name)[1]
    assert checks["values"]["status"] == "note"
    assert "unsigned" in checks["values"]["note"]


def test_unusable_values(toy_folder):
    values = toy_values(toy_folder).copy()
    values[0, 3, 4] = np.nan
    values[-1, 5, 6] = np.inf
    code, checks = run_doctor(toy_folder, write_variant(toy_folder, "nan.mrc", values))
    assert code == 1
    assert checks["NaN or infinity"]["value"] == "2"
    assert "time" not in checks, "no trial run after a failed check"
    code, checks = run_doctor(
        toy_folder, write_variant(toy_folder, "flat.mrc", np.full((10, 120, 132), 3, np.int16))
    )
    assert code == 1
    assert checks["grey values"]["value"] == "all 3"


def test_contrast(toy_folder):
    code, checks = run_doctor(toy_folder, write_variant(toy_folder, "light.mrc", -toy_values(toy_folder)))
    assert code == 0
    assert checks["contrast"]["value"] == "protein is light"
    noise = np.random.default_rng(0).normal(size=(10, 120, 132)).astype(np.float32)
    assert (
        run_doctor(toy_folder, write_variant(toy_folder, "noise.mrc", noise))[1]["contrast"]["status"]
        == "note"
    )
    assert run_doctor(toy_folder, "noise.mrc", "--contrast", "dark")[1]["contrast"]["status"] == "ok"


def test_size_of_a_file(toy_folder):
    assert run_doctor(toy_folder, "toy.mrc")[1]["file"]["value"] == "MRC, 0.6 MiB"


def test_memory(toy_folder):
    assert run_doctor(toy_folder, "toy.mrc", "--memory-budget", 0.5)[1]["memory"]["value"] == "about 0.5 GiB"
    checks = run_doctor(toy_folder, "toy.mrc", "--memory-budget", 100_000)[1]
    assert checks["memory"]["status"] == "note"
    assert "--memory-budget" in checks["memory"]["note"]


def test_membrane_masks(toy_folder):
    folder, _ = toy_folder
    assert run_doctor(toy_folder, "toy.mrc", "--membrane", folder / "membrane.mrc")[0] == 0
    membrane = np.fromfile(folder / "membrane.mrc", "i1", offset=1024).reshape(10, 120, 132)
    wrong = {
        "smaller.mrc": (membrane[:, :-1], "FAILED", "size"),
        "empty.mrc": (membrane * 0, "FAILED", "empty"),
        "labels.mrc": (membrane * 7, "note", "0 and 1"),
    }
    for name, (array, status, words) in wrong.items():
        write(folder / name, array, VOXEL)
        code, checks = run_doctor(toy_folder, "toy.mrc", "--membrane", folder / name)
        assert code == (1 if status == "FAILED" else 0)
        assert checks["membrane mask"]["status"] == status
        assert words in checks["membrane mask"]["note"]
    code, checks = run_doctor(toy_folder, "toy.mrc", "--membrane", folder / "none.mrc")
    assert code == 1
    result = CliRunner().invoke(
        app, ["doctor", str(folder / "toy.mrc"), str(folder / "toy.mrc"), "--membrane", "one.mrc"]
    )
    assert result.exit_code == 1
    assert "one for each" in result.output


def test_names_in_a_tomograms_star(toy_folder):
    folder, _ = toy_folder
    star = folder / "tomograms.star"
    star.write_text("data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nTS_01 300\ntoy 300\n")
    checks = run_doctor(toy_folder, "toy.mrc", "--tomograms", star)[1]
    assert checks["name in tomograms"]["status"] == "ok"
    star.write_text("data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nTS_01 300\nTS_02 300\n")
    code, checks = run_doctor(toy_folder, "toy.mrc", "--tomograms", star)
    assert code == 1
    assert "'TS_01'" in checks["name in tomograms"]["note"]
    assert run_doctor(toy_folder, "toy.mrc", "--tomograms", folder / "missing.star")[0] == 1


def test_models(toy_folder):
    folder, _ = toy_folder
    code, checks = run_doctor(toy_folder, "toy.mrc", "--classifier", folder / "segmenter.pt")
    assert code == 1
    assert "is a segmenter" in checks["classifier"]["note"]
    save_toy_models(folder, window_px=50, window_nm=68.0, voxel_size_angstrom=None)
    assert "own voxel size" in run_doctor(toy_folder, "toy.mrc")[1]["classifier"]["note"]
    save_toy_models(folder)
    code, checks = run_doctor(
        toy_folder, write_variant(toy_folder, "small.mrc", toy_values(toy_folder)[:, :30, :40])
    )
    assert code == 1
    assert "window" in checks["trial"]["note"]


def test_unusable_option_is_one_sentence(toy_folder):
    folder, models = toy_folder
    result = CliRunner().invoke(app, ["doctor", str(folder / "toy.mrc"), *models, "--contrast", "grey"])
    assert result.exit_code == 1
    assert "contrast" in result.output


def test_layouts(toy_folder, data):
    folder, _ = toy_folder
    found = volume_layout(folder / "toy.mrc")
    assert (found.format, found.mode, found.axes) == ("MRC", 2, "xyz")
    assert volume_layout(data / "emd_3197.map.gz").format == "MRC, compressed"
    assert volume_layout(data / "blobs.rec").sign_from is SignSource.IMOD_STAMP
    assert volume_layout(folder).format == "OME-Zarr"
