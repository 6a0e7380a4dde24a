"""Hostile names of files and tomograms: no path escapes, no injected rows, no multi-line messages."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.cli.tomogram_lists import result_folders
from t3ssfast.errors import InputError, T3Error
from t3ssfast.io import read
from t3ssfast.io.particles import export, load_all_candidates
from t3ssfast.plotting import draw_candidates
from t3ssfast.tomogram import Tomogram

HOSTILE_NAMES = [
    *("../", "..\\", "/", "/etc/passwd", "\\\\host\\share\\", "C:", "~/", "./", ".", "..", "-rf ", "--help"),
    *("\n", "\r\n", "\t", "\0", "\x1b[31m", "\x7f", "\u2028", "\u202e", "\ufeff", "\ud800"),
    *(
        "data_x\n\nloop_\n",
        "loop_",
        "_rlnTomoName #1\n",
        "# ",
        ";",
        "save_",
        "'",
        '"',
        "''",
        '""',
        "' \"",
        "`",
    ),
    *("=1+1", "+1", "-1+2", "@SUM(A1)", "=HYPERLINK('x')", ",", ",,", "\n0,0,0", '",', "|", "\t0\t0"),
    *("<script>", "</title>", "&amp;", "<img src=x onerror=x>", "javascript:", "{{7*7}}", "${x}", "%s", "%n"),
    *("$(touch x)", "`touch x`", "; touch x", "| touch x", "&& touch x", "$HOME", "*", "?", "[a]", "[bold]"),
    *(
        '"}',
        '{"a": 1}',
        "\\",
        "\\n",
        "\\u0000",
        "null",
        "NaN",
        "1e999",
        "true",
        "0x10",
        "",
        " ",
        "a b",
        "CON",
    ),
    *(
        "\N{SNOWMAN}",
        "\N{COMBINING ACUTE ACCENT}",
        "e\u0301",
        "\N{FULLWIDTH SOLIDUS}",
        "a" * 300,
        "$\\frac{$",
    ),
]
ALL_NAMES = [
    *HOSTILE_NAMES,
    *(
        f"TS{a}{b}"
        for a, b in itertools.islice(itertools.product(HOSTILE_NAMES[::2], HOSTILE_NAMES[1::3]), 300)
    ),
]
FILE_NAMES = {"relion5": "a.star", "csv": "a.csv", "copick": "run", "dynamo": "a.tbl", "coords": "a.txt"}


def candidates_named(name: str) -> Candidates:
    """Return two candidates in a tomogram of this name, one with a kind of this name."""
    return Candidates(
        centre_zyx=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        score=np.array([0.9, 0.8]),
        normal_zyx=np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        voxel_size_angstrom=10.0,
        tomogram_shape=(20, 30, 40),
        tomogram_name=name,
        kind=np.array([name[:30] or "t3ss", "t3ss"]),
    )


def test_at_least_300_names_are_tested():
    assert len(set(ALL_NAMES)) >= 300


@pytest.mark.parametrize("format", FILE_NAMES)
def test_exported_names_cannot_escape_or_inject(tmp_path, format, soak):
    folder = tmp_path / "out"
    for name in ALL_NAMES if soak else HOSTILE_NAMES:
        folder.mkdir()
        target = folder / FILE_NAMES[format]
        # A lone surrogate cannot be encoded, so no format can hold it.
        is_text = "\ud800" not in name
        try:
            export(candidates_named(name), target, format)
            found = load_all_candidates(target)
        except (T3Error, UnicodeEncodeError):
            if is_text:
                raise
            found = []
        assert not is_text or [len(one) for one in found] == [2], name
        for one in found:
            np.testing.assert_allclose(one.centre_zyx, [[1, 2, 3], [4, 5, 6]], atol=1e-3, err_msg=repr(name))
        assert {path.name for path in tmp_path.iterdir()} == {"out"}, name
        if format == "csv" and target.exists():
            rows = target.read_text().splitlines()[1:]
            cells = [cell.lstrip('"') for row in rows for cell in row.split(",")[10:12]]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))], name
        if format == "copick":
            assert all(path.parent.name == "Picks" for path in folder.rglob("*.json"))
        shutil.rmtree(folder)


def test_result_folders_stay_inside_the_output_folder(tmp_path):
    out = tmp_path / "out"
    for name in ALL_NAMES:
        try:
            folders = result_folders([Path("x") / name, Path("other.mrc")], out)
        except InputError:
            continue
        for folder in folders:
            assert folder.parent == out, name
            assert folder.name not in ("", ".", "..")


def test_messages_are_printable_on_one_line(tmp_path):
    for name in ALL_NAMES:
        with pytest.raises(T3Error) as caught:
            read(tmp_path / name / "none.mrc")
        assert str(caught.value).isprintable()
    for name in ("a\nb", "\x1b[31m", "[bold]", "{{7*7}}"):
        result = CliRunner().invoke(app, ["doctor", "--json", str(tmp_path / name / "none.mrc")])
        assert result.exit_code == 1
        ((displayed, checks),) = json.loads(result.stdout)["files"].items()
        assert displayed.isprintable()
        assert checks[0]["note"].isprintable()


def test_names_in_plots(tmp_path):
    volume = np.zeros((3, 40, 40), np.float32)
    # The first name has no glyph in the font; the warning about it would fail the test.
    for name in ["\N{CJK UNIFIED IDEOGRAPH-540D}", *ALL_NAMES[:: len(ALL_NAMES) // 12]]:
        candidates = replace(
            candidates_named("a"), tomogram_shape=volume.shape, centre_zyx=np.array([[1, 2, 3], [1, 5, 6]])
        )
        draw_candidates(tmp_path / "a.png", Tomogram(volume, 10.0, name), candidates)
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_provenance_is_valid_json_for_every_name(tmp_path):
    for name in HOSTILE_NAMES[::10]:
        detection = t3.Detection(candidates_named(name), None, {"input": {"name": name}})
        detection.save(tmp_path)
        assert json.loads((tmp_path / "provenance.json").read_text())["input"]["name"] == name
