"""`t3ssfast detect` over many tomograms: lists, folders and patterns, failures, masks and probability."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t3ssfast as t3
from command_line import CliRunner
from processes import python
from t3ssfast.cli import app
from t3ssfast.cli.tomogram_lists import find_tomograms, mask_of_each
from t3ssfast.errors import InputError, ReadError
from toy import VOXEL, Models, toy_tomogram


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def detect(models: Models, tmp_path: Path) -> Any:
    """Runs `t3ssfast detect` with toy models into the folder out."""
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"]]
    common = ["-o", tmp_path / "out", *given, "--contrast", "dark", "--threads", 1, "--no-png"]

    def detect(*arguments: object) -> Any:
        return run("detect", *arguments, *common)

    return detect


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files of one small tomogram; the last is called like the first, in another folder."""
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "TS_01.mrc", tmp_path / "TS_02.rec", tmp_path / "b" / "TS_01.mrc"]
    t3.write(paths[0], toy_tomogram((10, 90, 100))[0].data, VOXEL)
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    return paths


def finished(tmp_path: Path) -> set[str]:
    return {path.parent.name for path in (tmp_path / "out").glob("*/provenance.json")}


def test_tomograms_are_found_in_folders_patterns_and_lists(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("TS_03.st", "notes.txt", ".hidden.mrc", "TS_04.mrc.gz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "TS_05.zarr").mkdir()
    here = ["TS_01.mrc", "TS_02.rec", "TS_04.mrc.gz", "TS_05.zarr"]
    assert [p.name for p in find_tomograms([tmp_path])[0]] == here
    assert find_tomograms([Path("TS_0[12].*")]) == ([Path("TS_01.mrc"), Path("TS_02.rec")], True)
    assert find_tomograms([Path("**/TS_01.mrc")])[0] == [Path("TS_01.mrc"), Path("b/TS_01.mrc")]
    (tmp_path / "b" / "list.txt").write_text("# a night\n\nTS_02.rec\n  b/TS_01.mrc  \nTS_01.m*\n")
    assert find_tomograms([], Path("b/list.txt"))[0] == [
        Path("TS_02.rec"),
        Path("b/TS_01.mrc"),
        Path("TS_01.mrc"),
    ]
    monkeypatch.chdir("/")
    assert find_tomograms([], tmp_path / "b" / "list.txt")[0][0] == Path("TS_02.rec")
    (tmp_path / "b" / "own.txt").write_text("TS_01.mrc\n")
    assert find_tomograms([], tmp_path / "b" / "own.txt") == ([files[2]], True)
    # Nothing is searched twice because two patterns match it; a single file stays one.
    assert len(find_tomograms([tmp_path, tmp_path / "TS_0*.mrc", files[0]])[0]) == 4
    assert find_tomograms([files[0]]) == ([files[0]], False)
    assert find_tomograms([tmp_path / "none_*.mrc"]) == ([tmp_path / "none_*.mrc"], False)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="the list is empty"):
        find_tomograms([], tmp_path / "empty.txt")
    with pytest.raises(ReadError, match="the list cannot be read"):
        find_tomograms([], tmp_path / "missing.txt")


def test_folders_of_results_give_the_tomogram_and_not_its_masks(tmp_path):
    for name in ("tomogram", "membrane", "labels", "membrane_probability", "TS_1", "TS_1_membrane"):
        (tmp_path / f"{name}.mrc").touch()
    paths, is_list = find_tomograms([tmp_path])
    assert [path.name for path in paths] == ["TS_1.mrc", "tomogram.mrc"]
    assert is_list


def test_masks_are_found_by_name_in_a_folder(tmp_path, files):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("TS_01_membrane.mrc", "rec_TS_02.mrc"):
        (folder / name).touch()
    found = mask_of_each(files[:2], [folder], "membrane")
    assert found == [folder / "TS_01_membrane.mrc", folder / "rec_TS_02.mrc"]
    (folder / "TS_01_mask.mrc").touch()
    with pytest.raises(InputError, match="several membrane masks of 'TS_01'"):
        mask_of_each(files, [folder], "membrane")
    with pytest.raises(InputError, match="1 membrane masks for 3 tomograms"):
        mask_of_each(files, [files[0]], "membrane")


def test_one_line_for_each_tomogram_in_a_pipe_and_a_table(tmp_path, files, detect):
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    result = detect("--list", tmp_path / "list.txt")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for number, (path, line) in enumerate(zip(files, lines, strict=False), 1):
        assert line.startswith(f"{number} of 3: {path}: ")
        assert f"wrote {tmp_path / 'out'}" in line
    assert len(lines) == 3 + 4
    assert lines[3].split() == ["tomogram", "status", "candidates", "seconds"]
    assert all("done" in line for line in lines[4:])
    assert len(finished(tmp_path)) == 3
    again = detect("--list", tmp_path / "list.txt")
    assert again.stdout.count("finished before: ") == 3
    assert again.stdout.count("skipped") == 3


def test_a_closed_pipe_does_not_end_the_list(tmp_path, files, models):
    given = ["--segmenter", models["segmenter"], "--classifier", models["classifier"], "--no-png"]
    options = ["-o", tmp_path / "out", *given, "--contrast", "dark", "--threads", 1]
    arguments = [str(a) for a in ("t3ssfast", "detect", *files, *options)]
    reading, writing = os.pipe()
    os.close(reading)
    script = f"import sys; from t3ssfast.cli import main; sys.argv = {arguments!r}; main()"
    result = python(script, stdout=writing)
    os.close(writing)
    assert result.returncode == 0
    assert len(finished(tmp_path)) == 3


def test_a_folder_with_one_tomogram_has_a_subfolder(tmp_path, files, detect):
    assert detect(tmp_path / "b").exit_code == 0
    assert finished(tmp_path) == {"TS_01"}
    assert run("detect", "-o", tmp_path / "out").exit_code == 2


def test_any_error_costs_one_tomogram_only(tmp_path, files, detect, monkeypatch):
    from t3ssfast.detection import folder

    original, errors = folder.run_pipeline, [RuntimeError("a\nlayer"), MemoryError(), ZeroDivisionError()]

    def fail(*arguments: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return original(*arguments)

    monkeypatch.setattr(folder, "run_pipeline", fail)
    shutil.copy(files[0], tmp_path / "b" / "TS_09.mrc")
    result = detect(*files, tmp_path / "b" / "TS_09.mrc")
    assert result.exit_code == 1
    assert finished(tmp_path) == {"TS_09"}
    assert "(RuntimeError: a layer)" in result.stderr
    assert result.stderr.count("error: ") == 3
    assert result.stderr.splitlines()[-1].startswith("3 of 4 tomograms could not be searched")
    assert [line for line in result.stdout.splitlines() if line.endswith(": failed")] == [
        f"{number} of 4: {path}: failed" for number, path in enumerate(files, 1)
    ]
    assert "memory ran out" in result.stdout
    assert detect(*files, tmp_path / "b" / "TS_09.mrc").exit_code == 0


def test_results_of_another_tomogram_stay_unless_forced(tmp_path, files, detect):
    assert detect(files[0]).exit_code == 0
    refused = detect(files[1])
    assert refused.exit_code == 1
    assert "finished results of another tomogram" in refused.output
    assert "TS_01" in (tmp_path / "out" / "candidates.star").read_text()
    assert detect(files[1], "--force").exit_code == 0
    assert "TS_02" in (tmp_path / "out" / "candidates.star").read_text()


def test_a_search_mask_restricts_the_search_and_not_the_membrane(tmp_path, models, world, detect):
    tomogram, truth, _ = world
    t3.write(tmp_path / "a.mrc", tomogram.data, VOXEL)
    mask = np.zeros(tomogram.shape, np.int8)
    _, y, x = np.rint(truth.centre_zyx[0]).astype(int)
    mask[:, max(0, y - 12) : y + 12, max(0, x - 12) : x + 12] = 1
    t3.write(tmp_path / "mask.mrc", mask, VOXEL)
    result = detect(tmp_path / "a.mrc", "--search-mask", tmp_path / "mask.mrc", "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)[0]["candidates"]
    assert np.linalg.norm(np.array([found[k] for k in "zyx"]) - truth.centre_zyx[0]) < 5
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["search_mask"]["name"] == "a"
    restricted = t3.read(tmp_path / "out" / "membrane.mrc").data.copy()
    whole = detect(tmp_path / "a.mrc", "--json")
    assert len(json.loads(whole.stdout)[0]["candidates"]) == 3
    np.testing.assert_array_equal(restricted, t3.read(tmp_path / "out" / "membrane.mrc").data)
    t3.write(tmp_path / "empty.mrc", mask * 0, VOXEL)
    refused = detect(tmp_path / "a.mrc", "--search-mask", tmp_path / "empty.mrc")
    assert "set the region to search in to 1" in refused.output


@pytest.mark.parametrize("step", [1.0, 0.8])
def test_the_probability_is_written_and_thresholded(tmp_path, detect, step):
    tomogram = toy_tomogram(step=step)[0]
    t3.write(tmp_path / "a.mrc", tomogram.data, tomogram.voxel_size_angstrom)
    assert detect(tmp_path / "a.mrc").exit_code == 0
    assert not (tmp_path / "out" / "membrane_probability.mrc").exists()
    assert "wrote" in detect(tmp_path / "a.mrc", "--save-probability").output
    probability = t3.read(tmp_path / "out" / "membrane_probability.mrc")
    assert probability.shape == tomogram.shape
    assert probability.voxel_size_angstrom == pytest.approx(tomogram.voxel_size_angstrom)
    assert 0 <= probability.data.min() < 0.1 < 0.9 < probability.data.max() <= 1
    membrane = t3.read(tmp_path / "out" / "membrane.mrc").data != 0
    assert (probability.data[membrane] >= 0.59).all()
    assert "finished before" in detect(tmp_path / "a.mrc", "--save-probability").output
    assert detect(tmp_path / "a.mrc", "--membrane-threshold", 0.65).exit_code == 0
    fewer = t3.read(tmp_path / "out" / "membrane.mrc").data != 0
    assert 0 < fewer.sum() < membrane.sum()
    refused = detect(tmp_path / "a.mrc", "--save-probability", "--membrane", tmp_path / "a.mrc")
    assert "leave one of the two out" in refused.output


def test_warnings_are_one_line_without_the_code_that_they_came_from() -> None:
    script = r"""
        import sys, warnings
        from t3ssfast.cli import main
        sys.argv = ["t3ssfast", "--version"]
        try:
            main()
        except SystemExit:
            pass
        warnings.warn("the first\nline (Triggered internally at a/b.cpp:3.)", UserWarning)
        """
    assert python(script, capture_output=True, text=True).stderr == "warning: the first line\n"
