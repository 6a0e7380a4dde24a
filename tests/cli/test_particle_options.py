"""--format, --angstrom and --columns of the commands that read particles, and exports for other programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.main import get_command

from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.cli import train as train_command
from t3ssfast.io import write
from t3ssfast.io.particles import export, load_candidates

READING = [("evaluate",), ("export",), ("extract",), ("average",), ("preselect",)]
READING += [("train", name) for name in ("classifier", "verifier", "calibrate", "tune")]
SHAPE = (40, 50, 60)
# Columns class, z, y, x in Angstrom, which no format expects.
ROWS = "1 200 250 300.5\n2 150 200 100\n"
CENTRE = [[20, 25, 30.05], [15, 20, 10]]
OPTIONS = ["--columns", "class,z,y,x", "--angstrom"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "TS_1.mrc", rng.normal(size=SHAPE).astype(np.float32), 10.0)
    (tmp_path / "picks.dat").write_text(ROWS)
    return tmp_path


@pytest.mark.parametrize("names", READING)
def test_every_command_that_reads_particles_has_the_options(names):
    command = get_command(app)
    for name in names:
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--input-format", "--angstrom", "--columns"} <= options
    # Elsewhere it is the format of the output.
    assert names in (("export",), ("extract",)) or "--format" in options
    # Messages about sizes and pixel sizes name it.
    assert "--tomograms" in options


def test_export(folder):
    output = folder / "out.star"
    tomogram = folder / "TS_1.mrc"
    run("export", folder / "picks.dat", output, "--input-format", "coords", *OPTIONS, "--tomogram", tomogram)
    found = load_candidates(output)
    np.testing.assert_allclose(found.centre_zyx, CENTRE, atol=1e-4)
    assert list(found.kind) == ["t3ss", "class_2"]


def test_evaluate_reads_own_files_as_they_are(folder):
    known = Candidates(np.array(CENTRE), np.ones(2), np.tile([1.0, 0, 0], (2, 1)), 10.0, SHAPE, "TS_1")
    export(known, folder / "candidates.star")
    text = run(
        "evaluate",
        folder / "candidates.star",
        folder / "picks.dat",
        *("--format", "coords", *OPTIONS, "--voxel-size", 10, "--tolerance-nm", 1, "--json"),
    )
    assert json.loads(text)["true_positives"] == 2


def test_extract(folder):
    text = run(
        "extract",
        folder / "TS_1.mrc",
        *("--candidates", folder / "picks.dat", "--input-format", "coords", *OPTIONS),
        *("--box", 8, "-o", folder / "boxes", "--json", "--contrast", "dark"),
    )
    assert json.loads(text)["boxes"] == 2


def test_training(folder, monkeypatch):
    read = {}
    monkeypatch.setattr(
        "t3ssfast.training.train_classifier",
        lambda volumes, known, *args, **options: read.update(known=known),
    )
    monkeypatch.setattr(train_command, "_print_metrics", lambda *args: None)
    arguments = ("--picks", folder / "picks.dat", "--format", "coords", *OPTIONS, "-o", folder / "a.pt")
    run("train", "classifier", folder / "TS_1.mrc", *arguments)
    np.testing.assert_allclose(read["known"][0].centre_zyx, CENTRE, atol=1e-4)


def test_chimerax_script_of_a_folder_of_results(folder):
    known = Candidates(np.array(CENTRE), np.ones(2), np.tile([1.0, 0, 0], (2, 1)), 10.0, SHAPE, "TS_1")
    results = folder / "results"
    results.mkdir()
    export(known, results / "candidates.star")
    write(results / "membrane.mrc", np.ones(SHAPE, np.uint8), 10.0)
    provenance = {"input": {"path": str(folder / "TS_1.mrc")}}
    (results / "provenance.json").write_text(json.dumps(provenance))
    run("export", results, results / "view.cxc")
    script = (results / "view.cxc").read_text()
    assert f'open "{folder / "TS_1.mrc"}" id 1' in script
    assert 'open "membrane.mrc" id 2' in script
    assert script.count("marker #") == 2


def test_wrong_format_is_one_sentence(folder):
    result = CliRunner().invoke(
        app, ["export", str(folder / "picks.dat"), str(folder / "a.csv"), "--input-format", "cxc"]
    )
    assert result.exit_code == 1
    assert "'cxc' is not among" in " ".join(result.output.split())


def test_membrane_is_refused_for_formats_that_open_none(folder):
    reading = ["--input-format", "coords", *OPTIONS, "--tomogram", folder / "TS_1.mrc"]
    arguments = [
        "export",
        folder / "picks.dat",
        folder / "out.tbl",
        *reading,
        "--membrane",
        folder / "TS_1.mrc",
    ]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert "only ChimeraX scripts open it" in result.output
