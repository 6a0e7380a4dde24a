"""Reports in Chromium, with clicks, keys and downloads; `nox -s browser` runs these tests.

They are skipped where selenium or Chromium is missing.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import t3ssfast as t3
from report_page import ActionChains, By, Keys, WebDriverWait
from result_folders import make_results
from t3ssfast.cluster.summary import DetectionSummary, Row
from t3ssfast.io.particles import export
from t3ssfast.io.particles.curation import load_all_curations
from t3ssfast.reporting.views import VIEW_PIXELS

HOSTILE = "<img src=x onerror=document.title='hit'></script><script>document.title='hit'</script>"


@pytest.fixture
def report(tmp_path):
    """A page over two tomograms with nine candidates."""
    for name, n in (("TS_01", 5), ("TS_02", 4)):
        make_results(tmp_path / "out" / name, n, name=name, seed=n)
    return t3.report(tmp_path / "out", tmp_path / "report.html", progress=False)


def test_keys_judge_and_walk(page, report):
    page.open(report)
    page.press("a", "r", "u")
    assert page.labels()[:4] == ["accepted", "rejected", "unsure", ""]
    assert "1 accepted, 1 rejected, 1 unsure · 6 undecided" in page.text("#count")
    page.press("z", "z")
    assert page.labels()[:3] == ["accepted", "", ""]
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys("z").key_up(Keys.SHIFT).perform()
    assert page.labels()[:3] == ["accepted", "rejected", ""]
    page.press(Keys.ARROW_LEFT, "u")
    assert page.labels()[0] == "unsure"
    page.press(Keys.ARROW_LEFT, "u")
    assert page.labels()[0] == "", "the same key again withdraws a verdict"
    current = page.all('.card[aria-current="true"]')
    assert len(current) == 1
    page.press(Keys.ARROW_DOWN)
    assert page.all('.card[aria-current="true"]') != current


def test_clicks_judge(page, report):
    page.open(report)
    card = page.all(".card")[4]
    card.find_element(By.CSS_SELECTOR, "button[value=rejected]").click()
    assert page.labels()[4] == "rejected"
    pressed = card.find_element(By.CSS_SELECTOR, "button[value=rejected]").get_attribute("aria-pressed")
    assert pressed == "true"
    page.find("#undo").click()
    assert page.labels()[4] == ""
    page.find("#redo").click()
    assert page.labels()[4] == "rejected"


def test_threshold_changes_what_is_shown_and_expected(page, report):
    page.open(report)
    scores = sorted((float(s.text) for s in page.all(".card .score")), reverse=True)
    assert len(scores) == 9
    assert [float(s.text) for s in page.all(".card .score")] == scores
    page.threshold(0.6)
    kept = [score for score in scores if score >= 0.6]
    assert len(page.all(".card")) == len(kept)
    assert "expected precision" in page.text("#expected")
    # A focused slider leaves the letters to the verdicts, and moves by its own keys.
    page.find("#threshold").send_keys(Keys.ARROW_LEFT)
    assert page.text("#threshold-value") == "0.59"
    page.find("#threshold").send_keys("a")
    assert page.labels()[0] == "accepted"
    over = page.find("#histogram .u-over")
    ActionChains(page.driver).move_to_element_with_offset(over, 0, 20).click().perform()
    assert float(page.text("#threshold-value")) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("suffix", ["json", "csv", "star"])
def test_saved_verdicts_are_read_by_t3ssfast_and_by_the_page(page, report, suffix):
    page.open(report)
    page.select("sort", "position")
    page.press("a", "r", "u", "a", "r", "a")
    labels = page.labels()
    saved = page.save(suffix)
    read = load_all_curations(saved)
    assert sum(map(len, read)) == 6
    results = [
        t3.load_candidates(report.parent / "out" / some.tomogram_name / "candidates.csv") for some in read
    ]
    for some, result in zip(read, results, strict=True):
        distance = np.linalg.norm(some.centre_zyx[:, None] - result.centre_zyx, axis=2)
        np.testing.assert_allclose(distance.min(axis=1), 0, atol=0.01)
        nearest = result[distance.argmin(axis=1)]
        np.testing.assert_allclose(some.normal_zyx, nearest.normal_zyx, atol=1e-4)
        np.testing.assert_allclose(some.score, nearest.score, atol=1e-4)
        assert some.voxel_size_angstrom == pytest.approx(13.6)
    accepted = [t3.load_all_candidates(saved)]
    assert sum(map(len, accepted[0])) == labels.count("accepted")
    page.driver.execute_script("localStorage.clear()")
    page.open(report)
    page.select("sort", "position")
    assert set(page.labels()) == {""}
    page.find("#load").send_keys(str(saved))
    WebDriverWait(page.driver, 10).until(lambda d: "Loaded" in page.text("#message"))
    assert page.labels() == labels
    page.press("z")
    assert set(page.labels()) == {""}, "loading is undone as a whole"


def test_particles_for_relion(page, report):
    page.open(report)
    page.press("a", "r", "a")
    saved = page.save("particles")
    particles = t3.load_all_candidates(saved)
    assert sum(map(len, particles)) == 2
    assert "rlnCenteredCoordinateXAngst" in saved.read_text()
    saved.unlink()
    if page.find("#save").get_attribute("open") is None:
        page.find("#save summary").click()
    page.find("#with-open").click()
    saved = page.save("particles")
    assert sum(map(len, t3.load_all_candidates(saved))) == 8


def test_bad_files_are_refused_in_words(page, report, tmp_path):
    page.open(report)
    for name, text in (("a.json", "{"), ("b.csv", "x,y\n1,2"), ("c.star", "data_\n"), ("d.txt", "")):
        (tmp_path / name).write_text(text)
        page.find("#load").send_keys(str(tmp_path / name))
        WebDriverWait(page.driver, 10).until(
            lambda d, name=name: f"Cannot read {name}" in page.text("#message")
        )
    assert set(page.labels()) == {""}


def test_verdicts_outlive_a_reload(page, report):
    page.open(report)
    page.press("a", "r")
    page.open(report)
    assert page.labels()[:3] == ["accepted", "rejected", ""]


def test_no_request_leaves_the_page(page, report):
    page.open(report)
    page.press("a")
    entries = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert urls
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls)


def test_hostile_names_run_nothing(page, tmp_path):
    make_results(tmp_path / "out", 3, name=HOSTILE, kind=["<b>", "t3ss", "x"])
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    provenance["notes"] = [HOSTILE]
    provenance["seconds"] = {HOSTILE: 2.0}
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(provenance))
    page.open(t3.report(tmp_path / "out", tmp_path / "report.html", title="safe", progress=False))
    page.press("a", "r")
    assert page.driver.title == "safe"
    assert page.all("main img[onerror]") == []
    assert HOSTILE in page.text("#notes")
    (some,) = load_all_curations(page.save("star"))
    assert len(some) == 2
    (some,) = load_all_curations(page.save("csv"))
    assert some.tomogram_name == HOSTILE


def test_suggestions_come_first_and_estimate_the_precision(page, tmp_path):
    make_results(tmp_path / "out", 12)
    suggested = t3.suggest(tmp_path / "out", 8, random_share=0.5)
    t3.save_curation(suggested, tmp_path / "s.json")
    path = t3.report(tmp_path / "out", tmp_path / "r.html", curation=tmp_path / "s.json", progress=False)
    page.open(path)
    assert len(page.all(".card")) == 8
    assert page.all(".card .chosen:not([hidden])")
    assert not any(tag.is_displayed() for tag in page.all(".card .chosen")), "reasons would sway a verdict"
    page.press(*"aaarraaa")
    (judged,) = load_all_curations(page.save("json"))
    estimate = t3.estimate_precision(judged)
    shown = page.text("#estimate")
    assert f"Of {estimate.accepted + estimate.rejected} candidates drawn at random" in shown
    assert f"precision {estimate.low:.2f}–{estimate.high:.2f}" in shown


def test_truth_filters_and_marks(page, tmp_path):
    places = [[5, 10, 10], [15, 10, 40], [5, 40, 10], [15, 40, 40], [12, 25, 25]]
    candidates = make_results(tmp_path / "out", 5, centre_zyx=places)
    lost = replace(candidates[:1], centre_zyx=[[20.0, 55.0, 5.0]])
    export(candidates[:3].joined(lost), tmp_path / "truth.star")
    path = tmp_path / "r.html"
    page.open(t3.report(tmp_path / "out", path, truth=tmp_path / "truth.star", progress=False))
    for value, count in (("tp", 3), ("fp", 2), ("fn", 1), ("all", 6)):
        page.select("show", value)
        assert len(page.all(".card")) == count
    page.select("show", "fn")
    assert page.all(".card button") == [], "a missed particle is no candidate to judge"
    assert page.find("#curve canvas").size["width"] > 200


def test_states_of_many_tomograms(page, tmp_path):
    rows = [
        Row("TS_01", "done", 2, 3.5),
        Row("TS_02", "done", 2),
        Row(HOSTILE, "failed", attempts=3, error="cut"),
    ]
    for row in rows[:2]:
        make_results(tmp_path / "out" / row.tomogram, 2, name=row.tomogram)
    DetectionSummary(tmp_path / "out", tuple(rows)).save()
    page.open(t3.report(tmp_path / "out", tmp_path / "r.html", title="safe", progress=False))
    assert page.text("#facts").startswith("2 of 3 tomograms · 4 candidates")
    assert "1 failed, 2 done" in page.text("#states summary")
    notes = page.text("#notes").splitlines()
    assert notes == [f"{HOSTILE}: failed after 3 attempts: cut.", "TS_01, TS_02: A note of the detection."]
    assert [row.text for row in page.all("#states tbody th")] == [HOSTILE, "TS_01", "TS_02"]
    assert page.driver.title == "safe"


def test_a_data_set_without_results(page, tmp_path):
    (tmp_path / "out").mkdir()
    DetectionSummary(tmp_path / "out", (Row("TS_01", "failed", error="cut"),)).save()
    page.open(t3.report(tmp_path / "out", tmp_path / "r.html", progress=False))
    assert "TS_01: failed: cut." in page.text("#notes")
    assert "Nothing was found." in page.text("#cards")
    page.press("a", Keys.ARROW_RIGHT, "z")


def test_scene_turns_by_mouse_and_keys(page, report):
    page.open(report)
    canvas = page.find("#scene")
    picture = "return document.getElementById('scene').toDataURL()"
    pictures = [page.driver.execute_script(picture)]
    ActionChains(page.driver).drag_and_drop_by_offset(canvas, 60, 25).perform()
    pictures.append(page.driver.execute_script(picture))
    canvas.send_keys(Keys.ARROW_UP)
    pictures.append(page.driver.execute_script(picture))
    assert len(set(pictures)) == 3


def test_page_can_be_used_by_a_screen_reader(page, report):
    page.open(report)
    assert page.find("html").get_attribute("lang") == "en"
    unnamed = page.driver.execute_script(
        "return [...document.querySelectorAll('button, select, input, canvas, [role=img], img, section')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.getAttribute('alt') || e.textContent.trim()"
        " || (e.labels && e.labels.length) || e.closest('[hidden]')"
        " || e.closest('.uplot'))).map(e => e.outerHTML.slice(0, 120))"
    )
    assert unnamed == []
    card = page.find(".card")
    assert card.aria_role == "listitem"
    assert "undecided" in card.get_attribute("aria-label")
    page.press("a")
    assert "accepted" in page.find(".card").get_attribute("aria-label")
    assert "accepted" in page.text("#message")
    reachable = page.driver.execute_script(
        "return document.querySelectorAll('#cards [tabindex=\"0\"]').length"
    )
    assert reachable == 4, "one card and its three buttons"


def test_a_thousand_candidates(page, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (20, 4, VIEW_PIXELS, VIEW_PIXELS)).astype(np.uint8)

    def views(tomogram, candidates, sign):
        return (pictures[k % len(pictures)] for k in range(len(candidates)))

    monkeypatch.setattr("t3ssfast.reporting.build.views_of_candidates", views)
    make_results(tmp_path / "out", 1000)
    path = t3.report(tmp_path / "out", tmp_path / "r.html", progress=False)
    # Seconds of the processor, which do not depend on what else the machine does.
    page.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    page.open(path)
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    (seconds,) = [entry["value"] for entry in metrics if entry["name"] == "TaskDuration"]
    print(f"1000 candidates: {path.stat().st_size / 1e6:.1f} MB, ready after {seconds:.2f} s")
    assert seconds < 2
    assert len(page.all(".card")) == 600
    page.find("#more").click()
    assert len(page.all(".card")) == 1000
    page.press("a")
    assert page.labels()[0] == "accepted"
