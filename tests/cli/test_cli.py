"""The command line: help, exit codes, error messages, JSON output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import t3ssfast
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.detection.config import DetectConfig
from t3ssfast.io import read, write
from t3ssfast.io.particles import export, load_candidates


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_python(code, *arguments):
    """Run code in a new process that imports the same package as this test."""
    environment = os.environ | {"PYTHONPATH": str(Path(t3ssfast.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def run_in_process(*arguments):
    return run_python("from t3ssfast.cli import main; main()", *arguments)


def command_names(group=app, prefix=""):
    """Every command, and those of the subgroups, such as "train segmenter"."""
    names = [prefix + (command.name or command.callback.__name__) for command in group.registered_commands]
    for subgroup in group.registered_groups:
        names += command_names(subgroup.typer_instance, f"{prefix}{subgroup.name} ")
    return sorted(names)


def test_help_lists_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for name in command_names():
        assert name.split()[0] in result.output


@pytest.mark.parametrize("group", [[], ["train"]], ids=["t3ssfast", "train"])
def test_help_shows_whole_sentences_in_a_terminal_of_80_columns(group):
    lines = run(*group, "--help").output.partition("Commands:")[2].strip().splitlines()
    assert lines
    for line in lines:
        assert line.endswith("."), line
        assert not line.endswith("..."), line


@pytest.mark.parametrize("name", command_names())
def test_help_of_every_command_has_an_example(name):
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"t3ssfast {name}" in result.output[result.output.index("Example") :]


def test_help_of_detect_shows_the_defaults_of_the_configuration():
    config, text = DetectConfig(), " ".join(run("detect", "--help").output.split())
    for option, default in (
        ("--threshold", f"{config.score_threshold:g}"),
        ("--contrast", config.contrast),
        ("--memory-budget", f"{config.memory_budget_bytes / 2**30:g}"),
    ):
        # Releases of typer write the type in two ways.
        after = text[re.search(rf"{option} (<\w+>|[A-Z]+) ", text).end() :]
        assert after[after.index("[default:") :].startswith(f"[default: ({default})]"), option


def test_help_imports_no_heavy_package():
    code = (
        "import sys; from t3ssfast.cli import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "heavy = {'torch', 'pandas', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_exit_codes_and_output_of_a_process(tmp_path):
    assert run_in_process("--version").stdout.startswith("t3ssfast")
    failed = run_in_process("evaluate", tmp_path / "a.star", tmp_path / "b.star")
    assert failed.returncode == 1
    assert "no file of this name exists" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert failed.stdout == ""
    misused = run_in_process("evaluate", "--colour", "red")
    assert misused.returncode == 2
    assert "Usage" in misused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["evaluate"],
        ["evaluate", "a", "b", "--tolerance-nm", "wide"],
        ["simulate"],
        ["simulate", "-o", "x", "--seed", "-1"],
    ],
)
def test_bad_usage_is_exit_code_2(arguments):
    assert run(*arguments).exit_code == 2


def test_an_interrupt_is_exit_code_130(monkeypatch):
    import t3ssfast.cli.doctor as doctor

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_machine", interrupt)
    result = run("doctor")
    assert result.exit_code == 130
    assert "interrupted" in result.output


def test_out_of_memory_is_reported_in_one_sentence(monkeypatch):
    import t3ssfast.cli.doctor as doctor

    def fail():
        raise MemoryError

    monkeypatch.setattr(doctor, "_machine", fail)
    result = run("doctor")
    assert result.exit_code == 1
    assert result.output.startswith("error: ")


# -------------------------------------------------------------------------------------------------- evaluate


@pytest.fixture
def files(tmp_path, make_candidates):
    """A folder with 10 true particles and 10 candidates: 8 true, and 2 false ones on flagellar motors."""
    truth = make_candidates(10)
    shifted = truth.centre_zyx + np.float32([2, 0, 0])
    shifted[8:] += 200
    found = make_candidates(10, centre_zyx=shifted)
    motors = make_candidates(2, centre_zyx=shifted[8:], kind=np.array(["flagellar_motor"] * 2))
    export(truth, tmp_path / "truth.star")
    export(found, tmp_path / "candidates.star")
    export(found, tmp_path / "candidates.csv", "csv")
    export(motors, tmp_path / "distractors.star")
    return tmp_path


@pytest.mark.parametrize("name", ["candidates.star", "candidates.csv", ""])
def test_evaluate_as_json(files, name):
    arguments = ["--json", "--distractors", files / "distractors.star", "--plot", files / "curve.png"]
    result = run("evaluate", files / name, files / "truth.star", *arguments)
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    counts = [metrics[name] for name in ("true_positives", "false_positives", "false_negatives")]
    assert counts == [8, 2, 2]
    assert metrics["false_positive_kinds"] == {"flagellar_motor": 2}
    assert (files / "curve.png").stat().st_size > 1000


def test_evaluate_as_a_table(files):
    result = run("evaluate", files / "candidates.csv", files / "truth.star", "--tolerance-nm", "5")
    assert result.exit_code == 0
    assert "precision" in result.output
    none = run("evaluate", files / "candidates.csv", files / "truth.star", "--tolerance-nm", "1", "--json")
    assert json.loads(none.stdout)["true_positives"] == 0
    few = run("evaluate", files / "candidates.csv", files / "truth.star", "--min-score", "0.5", "--json")
    assert json.loads(few.stdout)["candidates"] < 10


def test_evaluate_an_empty_file(files, make_candidates):
    export(make_candidates(0), files / "none.csv", "csv")
    result = run("evaluate", files / "none.csv", files / "truth.star", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["recall"] == 0


def test_evaluate_pairs_tomograms_by_name(tmp_path, make_candidates):
    a, b = make_candidates(4, 1, tomogram_name="a"), make_candidates(5, 2, tomogram_name="b")
    export([a, b], tmp_path / "found.csv", "csv")
    export([b, a], tmp_path / "truth.star")
    result = run("evaluate", tmp_path / "found.csv", tmp_path / "truth.star", "--json")
    assert json.loads(result.stdout)["true_positives"] == 9
    export(b, tmp_path / "half.csv", "csv")
    result = run("evaluate", tmp_path / "half.csv", tmp_path / "truth.star", "--json")
    metrics = json.loads(result.stdout)
    assert (metrics["true_positives"], metrics["false_negatives"]) == (5, 4)


def test_evaluate_takes_the_output_folder_of_many_tomograms(tmp_path, make_candidates):
    sets = [make_candidates(4, 1, tomogram_name="a"), make_candidates(5, 2, tomogram_name="b")]
    for some in sets:
        for folder, name in (("found", "candidates.star"), ("known", "truth.star")):
            place = tmp_path / folder / some.tomogram_name
            place.mkdir(parents=True)
            export(some, place / name)
    export(sets, tmp_path / "found" / "candidates.star")
    (tmp_path / "found" / "summary.csv").write_text("tomogram,status\na,done\nb,done\n")
    result = run("evaluate", tmp_path / "found", tmp_path / "known", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["true_positives"] == 9


def test_evaluate_takes_the_size_from_a_tomogram(data, tmp_path):
    picks = data / "relion5_particles.star"
    assert run("evaluate", picks, picks).exit_code == 1
    result = run("evaluate", picks, picks, "--tomograms", data / "relion5_tomograms.star", "--json")
    assert json.loads(result.stdout)["true_positives"] == 5
    write(tmp_path / "t.mrc", np.zeros((4, 5, 6), np.int8), 10.52)
    result = run("evaluate", picks, picks, "--tomogram", tmp_path / "t.mrc", "--json")
    assert json.loads(result.stdout)["true_positives"] == 5


# ---------------------------------------------------------------------------------------------------- export


def test_export_chooses_the_format_by_suffix(files):
    for name in ("a.tbl", "a.mod", "a.csv", "a.txt", "a.star", "me_1_t3ss.json"):
        result = run("export", files / "candidates.star", files / name)
        assert result.exit_code == 0, result.output
        assert len(load_candidates(files / name)) == 10


def test_export_relion4(files):
    arguments = ["export", files / "candidates.star", files / "r4.star", "-f", "relion4"]
    assert run(*arguments).exit_code == 1
    assert not (files / "r4.star").exists()
    result = run(*arguments, "--tilt-series-pixel-size", "1.7", "--membrane-frame", "--min-score", "0.5")
    assert result.exit_code == 0
    text = (files / "r4.star").read_text()
    assert "rlnTomoSubtomogramRot" in text
    assert len(load_candidates(files / "r4.star")) < 10


def test_export_of_an_empty_file_and_to_an_unknown_format(files, make_candidates):
    export(make_candidates(0), files / "none.csv", "csv")
    assert run("export", files / "none.csv", files / "b.mod").exit_code == 1
    assert run("export", files / "none.csv", files / "b.mod", "--voxel-size", "13.6").exit_code == 0
    result = run("export", files / "candidates.star", files / "b.unknown")
    assert result.exit_code == 1
    assert result.output.startswith("error: ")


# -------------------------------------------------------------------------------------------------- simulate


def test_simulate_writes_everything(tmp_path):
    pytest.importorskip("t3ssfast.simulation")
    out = tmp_path / "simulated"
    result = run("simulate", "-o", out, "--seed", "3", "--shape", "24,64,64", "--json")
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "tomogram.mrc",
        "membrane.mrc",
        "labels.mrc",
        "truth.star",
        "truth.csv",
        "parameters.json",
    }
    tomogram = read(out / "tomogram.mrc")
    assert tomogram.shape == (24, 64, 64)
    assert tomogram.voxel_size_angstrom == 13.6
    assert set(np.unique(read(out / "membrane.mrc").data)) <= {0, 1}
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / "parameters.json").read_text())
    truth = load_candidates(out / "truth.star")
    assert isinstance(truth, Candidates)
    assert len(truth) == summary["t3ss"]
    assert run("simulate", "-o", out, "--set", "no_such_parameter=1").exit_code == 1
    assert run("simulate", "-o", out, "--set", "nonsense").exit_code == 2
    assert run("simulate", "-o", out, "--shape", "a,b").exit_code == 2


# ---------------------------------------------------------------------------------------------------- doctor


def test_doctor_reports_every_part():
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["ok"] else 1)
    names = [check["name"] for check in report["checks"]]
    for name in ("Python", "torch", "zarr", "mrcfile", "memory"):
        assert name in names
    assert {check["status"] for check in report["checks"]} <= {"ok", "note", "FAILED"}
    assert "torch" in run("doctor").output


def test_doctor_reports_a_missing_extra(monkeypatch):
    import t3ssfast.cli.doctor as doctor

    monkeypatch.setattr(
        doctor, "EXTRAS", [("no-such-extra", "no_such_module", "nothing; pip install 'x[y]'")]
    )
    result = run("doctor", "--json")
    check = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "no-such-extra")
    assert check["status"] == "note"
    assert check["value"] == "missing"
    assert check["note"] == "nothing; pip install 'x[y]'"
    assert "[y]" in run("doctor").output
