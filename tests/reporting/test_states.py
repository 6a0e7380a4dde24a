"""Reports on the output folder of many tomograms: what has become of each, also of those without results."""

from __future__ import annotations

import json
import shutil

import pytest

import t3ssfast as t3
from result_folders import make_results
from t3ssfast.cluster.summary import DetectionSummary, Row
from t3ssfast.errors import ReadError

ROWS = (
    Row("TS_01", "done", 3, 12.25, "local", 1),
    Row("TS_02", "skipped", 2),
    Row("TS_03", "failed", None, 1.5, "local", 3, "TS_03.mrc: the file ends early"),
    Row("TS_04", "poisoned", None, 2.0, "local", 3, "killed by signal 9"),
    Row("TS_05", "waiting"),
)


def make_data_set(out, rows=ROWS):
    for row in rows:
        if row.candidates is not None:
            make_results(out / row.tomogram, row.candidates, name=row.tomogram, seed=row.candidates)
    DetectionSummary(out, rows).save()
    return out


def statuses(data):
    return {state["name"]: state["status"] for state in data["states"]}


def test_every_tomogram_has_a_state(tmp_path, data_of):
    data = data_of(t3.report(make_data_set(tmp_path / "out"), tmp_path / "report.html", progress=False))
    assert [tomogram["name"] for tomogram in data["tomograms"]] == ["TS_01", "TS_02"]
    assert [state["name"] for state in data["states"]] == ["TS_03", "TS_04", "TS_05", "TS_01", "TS_02"]
    assert statuses(data) == {row.tomogram: row.status for row in ROWS}
    assert data["states"][0] == {
        "name": "TS_03",
        "status": "failed",
        "ended": False,
        "candidates": None,
        "seconds": 1.5,
        "attempts": 3,
        "worker": "local",
        "error": "TS_03.mrc: the file ends early",
    }
    assert data["problems"] == []


def test_summary_and_folder_may_differ(tmp_path, data_of):
    out = make_data_set(tmp_path / "out")
    shutil.rmtree(out / "TS_02")
    make_results(out / "TS_03", 1, name="TS_03")
    make_results(out / "TS_09", 1, name="TS_09")
    data = data_of(t3.report(out, tmp_path / "report.html", progress=False))
    known = statuses(data)
    assert (known["TS_02"], known["TS_03"], known["TS_09"]) == ("missing", "failed", "not listed")
    errors = {state["name"]: state["error"] for state in data["states"]}
    assert errors["TS_02"] == "candidates.csv is not in its folder"
    assert errors["TS_03"].endswith("ends early; the candidates shown are of an earlier run")


def test_a_data_set_without_results_gets_a_page(tmp_path, data_of):
    out = make_data_set(tmp_path / "out", ROWS[2:])
    data = data_of(t3.report(out, tmp_path / "report.html", progress=False))
    assert data["tomograms"] == data["candidates"] == []
    assert len(data["states"]) == 3


def test_results_of_one_tomogram_have_no_states(tmp_path, data_of):
    out = make_data_set(tmp_path / "out")
    data = data_of(t3.report(out / "TS_01", tmp_path / "report.html", progress=False))
    assert data["states"] == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"tomograms": 3}',
        '{"tomograms": [{"tomogram": "a"}]}',
        '{"tomograms": [{"tomogram": 1, "status": "done"}]}',
        '{"tomograms": [{"tomogram": "a", "status": "<b>"}]}',
        '{"tomograms": [{"tomogram": "a", "status": "done", "seconds": NaN}]}',
        '{"tomograms": [{"tomogram": "a", "status": "done", "candidates": "many"}]}',
    ],
)
def test_damaged_summary_is_said_in_the_page(content, tmp_path, data_of):
    out = make_data_set(tmp_path / "out")
    (out / "summary.json").write_text(content)
    with pytest.raises(ReadError, match=r"summary\.json: it is no summary of a data set"):
        DetectionSummary.load(out)
    data = data_of(t3.report(out, tmp_path / "report.html", progress=False))
    assert data["states"] == []
    (problem,) = data["problems"]
    assert "t3ssfast status" in problem
    assert len(data["candidates"]) == 5


def test_a_summary_is_read_as_it_was_written(tmp_path):
    summary = DetectionSummary(tmp_path, ROWS)
    summary.save()
    assert DetectionSummary.load(tmp_path) == summary
    assert json.loads((tmp_path / "summary.json").read_text())["counts"]["failed"] == 1
    assert DetectionSummary.load(tmp_path / "elsewhere") is None
