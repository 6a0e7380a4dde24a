"""The loop with the report: an annotator judges in the page by keys, and the detection finds more.

T3SSFAST_SCREENSHOTS names a folder for pictures and figures; those of the documentation are from `--soak`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import t3ssfast as t3
from curation_loop import LONG, SHORT, CurationLoop


def judge_suggested(page, loop: CurationLoop) -> None:
    """Press a key for each card, as the annotator decides; after a slip, undo it."""
    text = page.find("#data").get_attribute("textContent")
    data = json.loads(text)
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    for k in range(len(page.all(".card"))):
        row = rows[int(page.find('.card[aria-current="true"]').get_attribute("data-index"))]
        name = data["tomograms"][row["t"]]["name"]
        label = loop.verdict(name, [row["z"], row["y"], row["x"]])
        if k == 0:
            page.press("r" if label == "accepted" else "a", "z")
        page.press(label[0])
    assert "" not in page.labels()


def picture_of_cards(page, path: Path) -> None:
    page.driver.execute_script("document.getElementById('candidates').scrollIntoView()")
    page.driver.save_screenshot(path)


@pytest.mark.timeout(7200)
def test_verdicts_in_the_page_improve_the_detection(page, tmp_path, soak):
    loop = CurationLoop(tmp_path, LONG if soak else SHORT)
    kept = Path(os.environ.get("T3SSFAST_SCREENSHOTS", tmp_path))
    loop.simulate()
    found = loop.detect("tomograms", "found")
    others = loop.detect("others", "others_before")
    before = {"judged": loop.measure(found), "others": loop.measure(others)}
    loop.run("report", found, "-o", tmp_path / "report.html", "--curation", loop.suggest(found))
    page.open(tmp_path / "report.html")
    picture_of_cards(page, kept / "loop_report.png")
    judge_suggested(page, loop)
    picture_of_cards(page, kept / "loop_judged.png")
    verdicts = page.save("json")
    assert verdicts.name == "found_curation.json"
    labels = [label for some in t3.load_all_curations(verdicts) for label in some.label.tolist()]
    assert len(labels) == loop.size.verdicts
    estimate = page.text("#estimate")

    tuned = loop.tune(verdicts, found)
    found_again = loop.detect("tomograms", "again", "--verifier", tuned)
    others_again = loop.detect("others", "others_after", "--verifier", tuned)
    after = {"judged": loop.measure(found_again), "others": loop.measure(others_again)}
    figures = {
        "candidates": sum(len(one.score) for one in t3.load_all_candidates(found / "candidates.star")),
        "accepted": labels.count("accepted"),
        "rejected": labels.count("rejected"),
        "estimate": estimate,
        "before": before,
        "after": after,
    }
    (kept / "loop_in_browser.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures))
    assert after["others"]["f1"] > before["others"]["f1"] + 0.05
    loop.run("report", found_again, "-o", tmp_path / "again.html", "--curation", verdicts)
    page.open(tmp_path / "again.html")
    picture_of_cards(page, kept / "loop_again.png")
