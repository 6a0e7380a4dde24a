"""Tomograms and particle files in `extract`, `average`, `evaluate`, `export`, `preselect` and `train`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.io.particles import export, load_all_candidates, load_candidates

VOXEL = 10.0
SHAPE = (40, 48, 52)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def particles(name: str, *centres: tuple[int, int, int], score: float = 1.0) -> Candidates:
    n = len(centres)
    return Candidates(np.array(centres), np.full(n, score), np.tile([1.0, 0, 0], (n, 1)), VOXEL, SHAPE, name)


@pytest.fixture
def tomograms(tmp_path: Path) -> list[Path]:
    """Two tomograms of noise, called TS_01 and TS_02."""
    paths = [tmp_path / "TS_01.mrc", tmp_path / "TS_02.mrc"]
    for seed, path in enumerate(paths):
        t3.write(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32), VOXEL)
    return paths


def centres_of(folder: Path) -> dict[str, list[list[float]]]:
    found = load_all_candidates(folder / "particles.star", voxel_size_angstrom=VOXEL)
    return {some.tomogram_name: np.round(some.centre_zyx, 2).tolist() for some in found}


@pytest.mark.parametrize("called", ["{}.tomostar", "/data/rec/{}.mrc", "rec_{}", "{}_12.00Apx"])
def test_one_file_for_all_is_matched_by_any_name_of_a_tomogram(tomograms, tmp_path, called):
    sets = [particles(called.format("TS_02"), (20, 22, 24)), particles(called.format("TS_01"), (21, 20, 19))]
    export(sets, tmp_path / "all.star")
    result = run(
        "extract",
        *tomograms,
        "-c",
        tmp_path / "all.star",
        "--box",
        8,
        "-o",
        tmp_path / "o",
        "--contrast",
        "dark",
    )
    assert result.exit_code == 0, result.output
    assert centres_of(tmp_path / "o") == {"TS_01": [[21, 20, 19]], "TS_02": [[20, 22, 24]]}


def test_csv_files_are_taken_in_the_order_of_the_tomograms(tomograms, tmp_path):
    for number, centre in enumerate([(20, 21, 22), (18, 24, 26)]):
        (tmp_path / f"{number}").mkdir()
        z, y, x = centre
        (tmp_path / f"{number}" / "picks.csv").write_text(f"z,y,x\n{z},{y},{x}\n")
    files = [part for number in (0, 1) for part in ("-c", tmp_path / f"{number}" / "picks.csv")]
    result = run("extract", *tomograms, *files, "--box", 8, "-o", tmp_path / "o", "--contrast", "dark")
    assert result.exit_code == 0, result.output
    assert centres_of(tmp_path / "o") == {"TS_01": [[20, 21, 22]], "TS_02": [[18, 24, 26]]}
    export(particles("TS_02", (20, 20, 20)), tmp_path / "TS_02.star")
    swapped = ["-c", tmp_path / "TS_02.star", "-c", tmp_path / "0" / "picks.csv"]
    result = run("extract", *tomograms, *swapped, "--box", 8, "-o", tmp_path / "p", "--contrast", "dark")
    assert result.exit_code == 1
    assert "are of 'TS_02'" in result.output


def test_tomograms_named_alike_in_different_folders_are_two(tomograms, tmp_path):
    files = []
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        tomograms[number].rename(tmp_path / folder / "TS.mrc")
        export(particles("TS", (20, 20, 20 + number)), tmp_path / folder / "TS.star")
        files += ["-c", tmp_path / folder / "TS.star"]
    paths = [tmp_path / folder / "TS.mrc" for folder in ("a", "b")]
    options = ["--box", 8, "-o", tmp_path / "o", "--contrast", "dark"]
    assert run("extract", *paths, *files, *options).exit_code == 0
    assert centres_of(tmp_path / "o") == {"a_TS": [[20, 20, 20]], "b_TS": [[20, 20, 21]]}
    # One file for both could only mean one of them.
    refused = run("extract", *paths, *files[:2], *options)
    assert refused.exit_code == 1
    assert "no candidates of 'a_TS'" in refused.output


def test_a_tomogram_name_maps_what_is_left(tomograms, tmp_path):
    export([particles("Position_7", (20, 20, 20)), particles("Position_8", (9, 9, 9))], tmp_path / "m.star")
    common = ["-c", tmp_path / "m.star", "--box", 8, "-o", tmp_path / "o", "--contrast", "dark"]
    refused = run("extract", *tomograms, *common)
    assert "--tomogram-name TS_01=OTHER" in refused.output
    names = ["--tomogram-name", "TS_01=Position_8", "--tomogram-name", "TS_02=Position_7.tomostar"]
    assert run("extract", *tomograms, *common, *names).exit_code == 0
    assert centres_of(tmp_path / "o") == {"TS_01": [[9, 9, 9]], "TS_02": [[20, 20, 20]]}
    assert run("extract", tomograms[0], *common, "--tomogram-name", "Position_7").exit_code == 0
    assert centres_of(tmp_path / "o") == {"TS_01": [[20, 20, 20]]}
    assert run("extract", *tomograms, *common, "--tomogram-name", "Position_7").exit_code == 1


def test_evaluate_knows_a_tomogram_by_its_other_names(tmp_path):
    found = [particles("TS_01", (1, 2, 3), (9, 9, 9)), particles("TS_02", (4, 5, 6))]
    export(found, tmp_path / "found.star")
    for called in ("{}.tomostar", "/data/rec/{}.mrc", "rec_{}_Vol"):
        export([replace(s, tomogram_name=called.format(s.tomogram_name)) for s in found], tmp_path / "t.star")
        result = run("evaluate", tmp_path / "found.star", tmp_path / "t.star", "--json")
        assert json.loads(result.stdout)["true_positives"] == 3
    export([replace(s, tomogram_name=f"other{s.tomogram_name[-1]}") for s in found], tmp_path / "t.star")
    refused = run("evaluate", tmp_path / "found.star", tmp_path / "t.star", "--json")
    assert refused.exit_code == 1
    assert "none of them is in" in refused.output
    names = ["--tomogram-name", "TS_01=other1", "--tomogram-name", "TS_02=other2"]
    result = run("evaluate", tmp_path / "found.star", tmp_path / "t.star", "--json", *names)
    assert json.loads(result.stdout)["true_positives"] == 3


def test_evaluate_pairs_files_named_alike_in_their_order(tmp_path):
    paths = []
    for group in ("found", "truth"):
        for folder in ("a", "b"):
            (tmp_path / group / folder).mkdir(parents=True)
            path = tmp_path / group / folder / "t.csv"
            export(particles("t", (5, 5, 5) if folder == "a" else (30, 30, 30)), path, "csv")
            paths.append(path)
    result = run("evaluate", *paths[:2], "-t", paths[2], "-t", paths[3], "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert metrics["true_positives"] == 2
    assert list(metrics["tomograms"]) == [str(path) for path in paths[:2]]
    for repeated in (paths[:2], [*paths[:2], paths[0]]):
        assert "both called" in run("evaluate", *repeated, "-t", paths[2], "--json").output


def test_evaluate_names_tomograms_as_their_files_are_paired(tmp_path):
    for name, file in (("found", "candidates.star"), ("known", "truth.star")):
        for number in (1, 2):
            folder = tmp_path / name / f"a_tomogram_with_a_long_name_{number}"
            folder.mkdir(parents=True)
            export(particles("simulated", (5, 5, 5)), folder / file)
    paths = (tmp_path / "found", tmp_path / "known")
    metrics = json.loads(run("evaluate", *paths, "--json", "--no-intervals").stdout)
    assert list(metrics["tomograms"]) == ["a_tomogram_with_a_long_name_1", "a_tomogram_with_a_long_name_2"]
    assert "intervals" not in metrics
    table = run("evaluate", *paths, "--no-intervals").stdout
    assert "interval" not in table
    assert "…" not in table
    assert "95% interval" in run("evaluate", *paths).stdout.replace("\n", " ")


def test_tables_of_an_evaluation_show_no_precision_of_no_candidates(tmp_path):
    for name, known, found in (
        ("a", [(5, 5, 5)], []),
        ("b", [], [(5, 5, 5)]),
        ("c", [(5, 5, 5)], [(5, 5, 5)]),
    ):
        for folder, file, places in (("found", "candidates.star", found), ("known", "truth.star", known)):
            (tmp_path / folder / name).mkdir(parents=True)
            export(particles(name, (9, 9, 9), *places)[1:], tmp_path / folder / name / file)
    table = run("evaluate", tmp_path / "found", tmp_path / "known", "--no-intervals").stdout
    rows = {
        cells[0]: cells[4:6]
        for cells in (re.findall(r"[^\s│]+", line) for line in table.splitlines())
        if cells
    }
    assert (rows["a"], rows["b"], rows["c"]) == (["-", "0.000"], ["0.000", "-"], ["1.000", "1.000"])
    found, known = tmp_path / "found" / "a", tmp_path / "known" / "a"
    table = run("evaluate", found, known).stdout
    assert re.search(r"precision +│ +- │ +│", table)
    assert re.search(r"recall +│ +0\.000 │", table)


def test_evaluate_refuses_truth_in_another_unit(tmp_path):
    export(particles("TS_01", (20, 22, 24), (30, 30, 30)), tmp_path / "found.star")
    (tmp_path / "truth.csv").write_text("z,y,x\n200,220,240\n300,300,300\n")
    result = run("evaluate", tmp_path / "found.star", tmp_path / "truth.csv", "--voxel-size", VOXEL)
    assert result.exit_code == 1
    assert "Angstrom" in result.output


def test_foreign_scores_are_kept_unless_a_minimum_is_given(tmp_path):
    text = "z,y,x,score\n5,5,5,-999\n6,6,6,-0.02\n7,7,7,0.4\n"
    (tmp_path / "a.csv").write_text(text)
    out, size = tmp_path / "b.csv", ["--voxel-size", VOXEL]
    assert "wrote 3" in run("export", tmp_path / "a.csv", out, *size).output
    np.testing.assert_allclose(load_candidates(out).score, [-999, -0.02, 0.4])
    assert "wrote 1" in run("export", tmp_path / "a.csv", out, *size, "--min-score", 0).output
    result = run("evaluate", tmp_path / "a.csv", tmp_path / "a.csv", *size, "--json")
    assert json.loads(result.stdout)["candidates"] == 3


@pytest.mark.parametrize("command", ["extract", "average", "train", "preselect"])
def test_particles_outside_of_the_tomogram_are_refused(tomograms, tmp_path, command):
    (tmp_path / "a.csv").write_text("z,y,x\n" + "".join(f"{z},250,300\n" for z in (100, 200, 300)))
    t3.write(tmp_path / "m.mrc", np.ones(SHAPE, np.int8), VOXEL)
    tomogram, file, out = tomograms[0], tmp_path / "a.csv", tmp_path / "out"
    arguments = {
        "extract": ["extract", tomogram, "-c", file, "--box", 8, "-o", out],
        "average": ["average", tomogram, "-c", file, "--box", 16, "-o", out],
        "train": ["train", "classifier", tomogram, "-p", file, "-m", tmp_path / "m.mrc", "-o", out],
        "preselect": ["preselect", tomogram, tmp_path / "m.mrc", "--picks", file, "-o", tmp_path / "o.mrc"],
    }
    result = run(*arguments[command])
    assert result.exit_code == 1
    assert "3 of 3 particles lie outside of the tomogram" in result.output
    assert "Angstrom" in result.output


def test_the_contrast_comes_from_the_detection_beside_the_candidates(tomograms, tmp_path):
    folder = tmp_path / "found"
    folder.mkdir()
    export(particles("TS_01", (20, 22, 24)), folder / "candidates.star")
    boxes = {}
    for contrast, sign in (("dark", 1), ("light", -1)):
        provenance = {"input": {"name": "TS_01", "sha256": ""}, "contrast": {"sign": sign}}
        (folder / "provenance.json").write_text(json.dumps(provenance))
        for name, options in (("found", []), ("given", ["--contrast", contrast])):
            out = tmp_path / f"{contrast}_{name}"
            result = run("extract", tomograms[0], "-c", folder, "--box", 8, "-o", out, *options)
            assert result.exit_code == 0, result.output
            boxes[contrast, name] = mrcfile.read(out / "subtomograms.mrcs")
        np.testing.assert_array_equal(boxes[contrast, "found"], boxes[contrast, "given"])
    np.testing.assert_allclose(boxes["dark", "found"], -boxes["light", "found"], atol=1e-6)


def test_without_a_detection_the_contrast_is_looked_for(tomograms, tmp_path, monkeypatch):
    seen = []

    def find(volumes: Any, *_: Any) -> list[tuple[str, str]]:
        seen.extend(volume.name for volume in volumes)
        return [("light", "as a test says")] * len(volumes)

    monkeypatch.setattr("t3ssfast.detection.find_contrast.find_contrasts", find)
    export(particles("x", (20, 22, 24)), tmp_path / "a.star")
    result = run("extract", tomograms[0], "-c", tmp_path / "a.star", "--box", 8, "-o", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert seen == ["TS_01"]
    assert "TS_01: protein is light (as a test says)" in result.output
    assert (
        run(
            "extract", tomograms[0], "-c", tmp_path / "a.star", "-o", tmp_path / "o", "--contrast", "x"
        ).exit_code
        == 1
    )


def test_an_average_takes_the_contrast_of_each_tomogram():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=SHAPE).astype(np.float32)
    sets = [particles(name, (20, 20, 20), (20, 26, 28)) for name in ("a", "b")]
    both = [t3.Tomogram(sign * volume, VOXEL, name) for sign, name in ((1, "a"), (-1, "b"))]
    same = [t3.Tomogram(volume, VOXEL, name) for name in ("a", "b")]
    config = t3.AverageConfig(iterations=1, contrast=("dark", "light"))
    mixed = t3.average(both, sets, box=16, config=config, device="cpu")
    dark = t3.average(same, sets, box=16, config=t3.AverageConfig(iterations=1), device="cpu")
    np.testing.assert_array_equal(mixed.map, dark.map)


def test_export_renames_tomograms(tmp_path):
    export([particles("a", (1, 2, 3)), particles("b", (4, 5, 6))], tmp_path / "a.star")
    result = run("export", tmp_path / "a.star", tmp_path / "b.star", "--tomogram-name", "TS_01=b.tomostar")
    assert result.exit_code == 0, result.output
    names = {some.tomogram_name for some in load_all_candidates(tmp_path / "b.star")}
    assert names == {"a", "TS_01"}


def test_a_folder_of_results_is_matched_by_name(tomograms, tmp_path):
    for name, sign, centre in (("TS_02", -1, (20, 20, 21)), ("TS_01", 1, (20, 20, 20))):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        export(particles(name, centre), folder / "candidates.star")
        provenance = {"input": {"name": name}, "contrast": {"sign": sign}}
        (folder / "provenance.json").write_text(json.dumps(provenance))
    result = run("extract", *tomograms, "-c", tmp_path / "results", "--box", 8, "-o", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert centres_of(tmp_path / "o") == {"TS_01": [[20, 20, 20]], "TS_02": [[20, 20, 21]]}
    boxes = mrcfile.read(tmp_path / "o" / "subtomograms.mrcs").reshape(2, 8, 8, 8)
    for path, box, contrast in zip(tomograms, boxes, ("dark", "light"), strict=True):
        (some,) = [
            s for s in load_all_candidates(tmp_path / "o" / "particles.star") if s.tomogram_name == path.stem
        ]
        np.testing.assert_array_equal(t3.extract(path, some, 8, contrast=contrast)[0], box)


def test_the_library_looks_for_the_contrast_where_it_is_asked_to(tomograms, monkeypatch):
    def find(volumes: Any, *_: Any) -> list[tuple[str, str]]:
        return [("light", "as a test says")] * len(volumes)

    monkeypatch.setattr("t3ssfast.detection.find_contrast.find_contrasts", find)
    some = particles("TS_01", (20, 20, 20), (20, 26, 28))
    found, given = (t3.extract(tomograms[0], some, 8, contrast=contrast) for contrast in ("auto", "light"))
    np.testing.assert_array_equal(found, given)
    found, given = (
        t3.average(
            tomograms[0], some, 16, config=t3.AverageConfig(iterations=1, contrast=contrast), device="cpu"
        )
        for contrast in ("auto", "light")
    )
    np.testing.assert_array_equal(found.map, given.map)


@pytest.mark.parametrize(
    ("factor", "pixel_size", "why"),
    [(1 / 60, None, "within one voxel of the corner"), (1.0, 1.7, "looks like that of a 2D stack")],
)
def test_evaluate_refuses_particles_in_the_corner_of_the_truth(tmp_path, factor, pixel_size, why):
    centres = [(5, 8, 50), (20, 40, 20), (30, 6, 8), (10, 46, 40), (25, 24, 30)]
    truth = particles("TS_01", *centres)
    export(truth, tmp_path / "truth.star")
    names = ["rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ")]
    rows = [f"TS_01 {' '.join(f'{value * factor:.4f}' for value in reversed(centre))}" for centre in centres]
    if pixel_size is not None:
        names.append("rlnDetectorPixelSize")
        rows = [f"{row} {pixel_size}" for row in rows]
    # Not only fractions, which are refused without the size of the tomogram.
    rows[0] = rows[0].replace("0.1333", "-0.1000")
    header = "".join(f"_{name}\n" for name in names)
    (tmp_path / "found.star").write_text(f"data_particles\nloop_\n{header}" + "\n".join(rows) + "\n")
    given = [] if pixel_size else ["--voxel-size", VOXEL]
    result = run("evaluate", tmp_path / "found.star", tmp_path / "truth.star", *given)
    assert result.exit_code == 1
    assert why in result.output
