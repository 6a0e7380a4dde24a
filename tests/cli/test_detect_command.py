"""`t3ssfast detect`: files written, JSON, several tomograms, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, Models, save_toy_verifier


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_writes_results_and_pictures(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    t3.write(tmp_path / "TS_01.mrc", world[0].data, VOXEL)
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"]]
    result = run("detect", tmp_path / "TS_01.mrc", "-o", tmp_path / "out", "--device", "cpu", *given)
    assert result.exit_code == 0, result.output
    assert "3 candidates" in result.output
    assert "TS_01" in (tmp_path / "out" / "candidates.star").read_text()
    for name in ("candidates.png", "gallery.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_several_tomograms_get_one_folder_each_and_json_lists_them(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    for name in ("TS_01.mrc", "TS_02.rec"):
        t3.write(tmp_path / name, world[0].data, VOXEL)
        t3.write(tmp_path / f"mask_{name}", world[2], VOXEL)
    arguments = [tmp_path / "TS_01.mrc", tmp_path / "TS_02.rec", "-o", tmp_path / "out", "--no-png"]
    for name in ("TS_01.mrc", "TS_02.rec"):
        arguments += ["--membrane", tmp_path / f"mask_{name}"]
    options = ["--classifier", models["classifier"], "--json", "--threshold", 0.4, "--memory-budget", 0.5]
    result = run("detect", *arguments, *options, "--threads", 1, "--contrast", "dark")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [len(entry["candidates"]) for entry in report] == [3, 3]
    assert set(report[0]["candidates"][0]) >= {"z", "y", "x", "score", "rot", "tilt", "psi"}
    for name in ("TS_01", "TS_02"):
        assert (tmp_path / "out" / name / "provenance.json").is_file()
        assert not (tmp_path / "out" / name / "membrane.mrc").exists()
        assert not (tmp_path / "out" / name / "candidates.png").exists()


def test_an_unreadable_tomogram_does_not_stop_the_others(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    nan = np.array(world[0].data)
    nan[1, 2, 3] = np.nan
    t3.write(tmp_path / "nan.mrc", nan, VOXEL)
    t3.write(tmp_path / "good.mrc", world[0].data, VOXEL)
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "good.mrc").read_bytes()[:5000])
    names = [tmp_path / f"{name}.mrc" for name in ("none", "cut", "nan", "good")]
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"], "--contrast", "dark"]
    result = run("detect", *names, "-o", tmp_path / "out", *given, "--no-png", "--json", "--threads", 1)
    assert result.exit_code == 1
    *errors, last = result.stderr.splitlines()
    assert [sentence.split(":")[0] for sentence in errors] == ["error"] * 3
    assert all(name.name in sentence for name, sentence in zip(names, errors, strict=False))
    assert last == "3 of 4 tomograms could not be searched; the others are finished."
    assert [Path(entry["tomogram"]).name for entry in json.loads(result.stdout)] == ["good.mrc"]
    assert (tmp_path / "out" / "good" / "provenance.json").is_file()
    assert not (tmp_path / "out" / "cut").exists()


def test_errors_are_one_sentence_and_leave_no_files(
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
        ([tmp_path / "a.mrc", tmp_path / "a.mrc", *given], "given 2 times"),
        ([tmp_path / "a.mrc", tmp_path / "a.mrc", *given, "--membrane", tmp_path / "a.mrc"], "masks"),
    ]:
        result = run("detect", *arguments, *out)
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert result.output.count("error:") == 1
        assert not (tmp_path / "out").exists()
    assert run("detect", tmp_path / "a.mrc").exit_code == 2


def test_false_discovery_rate_and_pooling(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    verifier = save_toy_verifier(tmp_path)
    for name in ("TS_01.mrc", "TS_02.mrc"):
        t3.write(tmp_path / name, world[0].data, VOXEL)
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"], "--verifier", verifier]
    tomograms = [tmp_path / "TS_01.mrc", tmp_path / "TS_02.mrc"]
    result = run("detect", *tomograms, "-o", tmp_path / "out", "--no-png", "--fdr", 0.05, *given)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "TS_01" / "decoys.csv").is_file()
    result = run("fdr", tmp_path / "out", "-o", tmp_path / "pooled", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tomograms"] == 2
    assert (tmp_path / "pooled" / "TS_02" / "candidates.csv").is_file()
    result = run("fdr", tmp_path / "out" / "TS_01")
    assert "estimated false-discovery rate" in result.stdout
    result = run("fdr", tmp_path)
    assert result.exit_code == 1
    assert "no finished result" in result.stderr
    result = run("detect", tomograms[0], "-o", tmp_path / "new", "--fdr", 0.05, "--threshold", 0.5)
    assert result.exit_code == 1
    assert "one of the two" in result.stderr
