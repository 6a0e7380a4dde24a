"""Reports: what the page holds, and that nothing in names and values can become code."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import t3ssfast as t3
from command_line import CliRunner
from result_folders import EXPECTED, SHAPE, make_results
from t3ssfast.cli import app
from t3ssfast.errors import InputError, OutputError, ReadError
from t3ssfast.io.particles import export
from t3ssfast.reporting.views import VIEW_PIXELS

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&'\"\u2028=1+1"


def test_page_holds_every_candidate(tmp_path, data_of):
    candidates = make_results(tmp_path / "out", 7)
    path = t3.report(tmp_path / "out", tmp_path / "report.html", progress=False)
    data = data_of(path)
    shown = data["candidates"]
    assert len(shown) == data["pictures"] == 7
    np.testing.assert_allclose([[c[a] for a in "zyx"] for c in shown], candidates.centre_zyx, atol=1e-3)
    np.testing.assert_allclose([c["score"] for c in shown], candidates.score, atol=1e-4)
    np.testing.assert_allclose([c["tilt"] for c in shown], candidates.euler_zyz[:, 1], atol=1e-2)
    np.testing.assert_allclose([c["cl"] for c in shown], candidates.details["classifier_score"], atol=1e-3)
    assert {c["label"] for c in shown} == {""}
    (tomogram,) = data["tomograms"]
    assert tomogram["name"] == "TS_01"
    assert tomogram["shape"] == list(SHAPE)
    assert tomogram["notes"] == ["A note of the detection."]
    assert tomogram["seconds"] == {"segment": 2.5, "classify": 1.25}
    assert data["expected"]["precision"] == EXPECTED["precision"]
    assert data["threshold"] <= candidates.score.min()


@pytest.mark.parametrize(
    ("config", "threshold"),
    [
        ({"score_threshold": 0.2}, 0.2),
        ({"score_threshold": 0.001}, 0.0),
        ({"score_threshold": 0.9}, 0.4),
        ({"score_threshold": 0.2, "min_precision": 0.9}, 0.4),
        ({"score_threshold": 7.0}, 0.4),
        ({"score_threshold": "x"}, 0.4),
        ("x", 0.4),
    ],
)
def test_page_starts_at_the_threshold_of_the_detection(tmp_path, data_of, config, threshold):
    make_results(tmp_path / "out", 3, score=[0.8, 0.6, 0.4])
    file = tmp_path / "out" / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"config": config}))
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    assert data["threshold"] == threshold


def test_pictures_have_a_row_for_each_candidate_and_a_column_for_each_view(tmp_path, data_of):
    make_results(tmp_path / "out", 3)
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    (sprite,) = data["sprites"]
    image = Image.open(io.BytesIO(base64.b64decode(sprite.split(",")[1])))
    assert image.size == (len(data["views"]) * VIEW_PIXELS, 3 * VIEW_PIXELS)
    (tomogram,) = data["tomograms"]
    assert len(tomogram["cloud"]) > 100
    assert all(tomogram_slice["src"].startswith("data:image/") for tomogram_slice in tomogram["slices"])
    assert any(tomogram_slice["outline"].startswith("M") for tomogram_slice in tomogram["slices"])


def test_page_is_the_same_for_the_same_results(tmp_path):
    make_results(tmp_path / "out")
    pages = [t3.report(tmp_path / "out", tmp_path / f"{k}.html", progress=False).read_bytes() for k in "ab"]
    assert pages[0] == pages[1]


class Tags(HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_hostile_names_and_values_stay_text(tmp_path, data_of):
    make_results(tmp_path / "out", 3, name=HOSTILE, kind=[HOSTILE[:20]] * 3)
    text = (tmp_path / "out" / "provenance.json").read_text()
    provenance = json.loads(text)
    provenance["notes"] = [HOSTILE] * 30
    provenance["seconds"] = {HOSTILE: 1.0, "b": "<b>", "c": float("1e300")}
    provenance["software"]["t3ssfast"] = HOSTILE
    provenance["expected"] = {"score": [HOSTILE]}
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(provenance))
    path = t3.report(tmp_path / "out", tmp_path / "report.html", title=HOSTILE, progress=False)
    page = path.read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(page)
    scripts = [attributes for tag, attributes in parser.tags if tag == "script"]
    assert len(scripts) == 5
    assert not [tag for tag, attributes in parser.tags if any(name.startswith("on") for name in attributes)]
    assert not [tag for tag, _ in parser.tags if tag in ("img", "iframe", "object", "link")]
    assert "alert(1)</" not in page.replace("&lt;", "").replace("\\u003c", "")
    data = data_of(path)
    assert data["tomograms"][0]["notes"][0] == HOSTILE
    assert data["expected"] is None


def test_policy_allows_what_the_page_brings_and_nothing_else(tmp_path):
    make_results(tmp_path / "out", 2)
    page = t3.report(tmp_path / "out", tmp_path / "report.html", progress=False).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        assert rules[rule].split() == [f"'sha256-{digest}'" for digest in digests]
    assert "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_several_folders_and_names(tmp_path, data_of):
    for name in ("a", "b"):
        make_results(tmp_path / "results" / name, 2, name="same", seed=ord(name))
    data = data_of(t3.report(tmp_path / "results", tmp_path / "report.html", progress=False))
    assert [tomogram["name"] for tomogram in data["tomograms"]] == ["a", "b"]
    assert [c["t"] for c in data["candidates"]] == [0, 0, 1, 1]
    folders = [tmp_path / "results" / "b", tmp_path / "results" / "a"]
    data = data_of(t3.report(folders, tmp_path / "report.html", progress=False))
    assert [tomogram["name"] for tomogram in data["tomograms"]] == ["b", "a"]


def test_results_without_candidates(tmp_path, data_of):
    make_results(tmp_path / "out", 0)
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    assert data["candidates"] == data["sprites"] == []
    assert data["tomograms"][0]["slices"]


def test_missing_tomogram_is_said_in_the_page(tmp_path, data_of):
    make_results(tmp_path / "out", 2)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "out" / "tomogram.mrc").rename(moved / "rec_TS_01.mrc")
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    assert data["pictures"] == 0
    assert "--tomograms" in data["tomograms"][0]["notes"][-1]
    data = data_of(t3.report(tmp_path / "out", tmp_path / "r.html", tomograms=moved, progress=False))
    assert data["pictures"] == 2


def test_another_tomogram_is_not_shown(tmp_path, data_of):
    make_results(tmp_path / "out", 2)
    t3.write(tmp_path / "out" / "tomogram.mrc", np.zeros((5, 5, 5), np.float32), 13.6)
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    assert data["pictures"] == 0
    assert "its shape is (5, 5, 5)" in data["tomograms"][0]["notes"][-1]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"input": 5, "notes": 7, "seconds": [], "expected": 3}'])
def test_damaged_provenance(text, tmp_path, data_of):
    make_results(tmp_path / "out", 2)
    (tmp_path / "out" / "provenance.json").write_text(text)
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    assert len(data["candidates"]) == 2
    assert data["expected"] is None


def test_truth_marks_true_false_and_missed(tmp_path, data_of):
    candidates = make_results(tmp_path / "out", 4, kind=["t3ss", "t3ss", "t3ss", "flagellar_motor"])
    known = candidates[[0, 1, 3]]
    lost = replace(candidates[:1], centre_zyx=[[20.0, 55.0, 5.0]])
    truth = replace(known, kind=["t3ss", "flagellar_motor", "flagellar_motor"]).joined(lost)
    export(truth, tmp_path / "truth.star")
    path = t3.report(
        tmp_path / "out", tmp_path / "report.html", truth=tmp_path / "truth.star", progress=False
    )
    data = data_of(path)
    outcomes = [c["outcome"] for c in data["candidates"]]
    assert outcomes[:4] == ["tp", "fp", "fp", "tp"]
    # The particle of the other kind, and the one without a candidate.
    assert outcomes[4:] == ["fn", "fn"]
    assert [data["truth"][name] for name in ("truth", "tp", "fp", "fn")] == [4, 2, 2, 2]
    confusion = data["truth"]["confusion"]
    counts = {
        (found, true): confusion["counts"][r][c]
        for r, found in enumerate(confusion["found"])
        for c, true in enumerate(confusion["true"])
    }
    assert counts["t3ss", "flagellar_motor"] == 1
    assert counts["t3ss", "t3ss"] == 1
    assert counts["t3ss", "nothing"] == 1
    assert counts["nothing", "t3ss"] == 1


def test_truth_of_other_tomograms_is_refused(tmp_path):
    for name in ("a", "b"):
        make_results(tmp_path / "results" / name, 2, name=name)
    other = replace(make_results(tmp_path / "c", 2), tomogram_name="c")
    export(other, tmp_path / "truth.star")
    with pytest.raises(InputError, match="no truth of 'a', 'b'"):
        t3.report(
            tmp_path / "results", tmp_path / "report.html", truth=tmp_path / "truth.star", progress=False
        )


def test_verdicts_and_added_particles_are_opened_with(tmp_path, data_of):
    candidates = make_results(tmp_path / "out", 4)
    added = replace(candidates[:1], centre_zyx=[[20.0, 55.0, 5.0]], label=["accepted"], details={})
    judged = replace(candidates[:2], label=["accepted", "rejected"], details={})
    t3.save_curation(judged.joined(added), tmp_path / "v.json")
    path = t3.report(tmp_path / "out", tmp_path / "report.html", curation=tmp_path / "v.json", progress=False)
    shown = data_of(path)["candidates"]
    assert [c["label"] for c in shown] == ["accepted", "rejected", "", "", "accepted"]
    assert shown[-1]["chosen"] == "added"
    t3.save_curation(replace(judged, tomogram_name="other"), tmp_path / "v.json")
    with pytest.raises(InputError, match="the results are of 'TS_01'"):
        t3.report(tmp_path / "out", tmp_path / "r.html", curation=tmp_path / "v.json", progress=False)


def test_wrong_paths_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="hold candidates"):
        t3.report(tmp_path / "empty", tmp_path / "report.html", progress=False)
    with pytest.raises(ReadError, match="no file"):
        t3.report(tmp_path / "missing", tmp_path / "report.html", progress=False)
    make_results(tmp_path / "out", 1)
    with pytest.raises(ReadError, match="this is a file"):
        t3.report(tmp_path / "out" / "candidates.csv", tmp_path / "report.html", progress=False)
    with pytest.raises(InputError, match="given twice"):
        t3.report([tmp_path / "out", tmp_path / "out"], tmp_path / "report.html", progress=False)
    with pytest.raises(OutputError, match="does not exist"):
        t3.report(tmp_path / "out", tmp_path / "no" / "report.html", progress=False)
    assert not list(tmp_path.glob("**/*.html"))


def test_command(tmp_path):
    make_results(tmp_path / "out", 2)
    out = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"file": str(out), "bytes": out.stat().st_size}
    result = CliRunner().invoke(app, ["report", str(tmp_path / "missing"), "-o", str(out)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_decoys_are_shown_where_a_detection_wrote_them(tmp_path, data_of):
    make_results(tmp_path / "out", 3)
    decoys = tmp_path / "out" / "decoys.csv"
    decoys.write_text("z,score,log_odds,decoy_log_odds\n1,0.2,-1,-3\n1,0.9,3,1\n1,0.5,1,0\n")
    data = data_of(t3.report(tmp_path / "out", tmp_path / "report.html", progress=False))
    np.testing.assert_allclose(data["decoys"], [0.2, 0.35, 0.5])
    for damaged in ("", "a,b\n1,2\n", "score,log_odds,decoy_log_odds\n1,x,2\n"):
        decoys.write_text(damaged)
        assert data_of(t3.report(tmp_path / "out", tmp_path / "r.html", progress=False))["decoys"] is None
