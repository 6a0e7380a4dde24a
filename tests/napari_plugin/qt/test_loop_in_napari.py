"""The loop in a window: an annotator judges by keys in Curate, Train learns, and Detect finds more.

T3SSFAST_SCREENSHOTS names a folder for pictures and figures; those of the documentation are from `--soak`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from qtpy.QtCore import Qt

from curation_loop import LONG, SHORT, CurationLoop
from napari_keys import press

KEYS = {"accepted": Qt.Key.Key_A, "rejected": Qt.Key.Key_R}
HOUR_MS = 3_600_000


@pytest.mark.timeout(7200)
def test_verdicts_in_the_widget_improve_the_detection(viewer, qtbot, tmp_path, soak):
    loop = CurationLoop(tmp_path, LONG if soak else SHORT)
    kept = Path(os.environ.get("T3SSFAST_SCREENSHOTS", tmp_path))
    loop.simulate()
    found = loop.detect("tomograms", "found")
    before = loop.measure(loop.detect("others", "others_before"))

    viewer.open(found, plugin="t3ssfast")
    viewer.window.resize(1500, 900)
    dock, curate = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    curate.order.setCurrentText("least certain first")
    # The current candidate stays when the order changes; go to the first.
    curate.step(-len(curate.session.order))
    for _ in range(loop.size.verdicts):
        number, row = curate.session.current
        some = curate.session.candidates(number)
        label = loop.verdict(some.tomogram_name, some.centre_zyx[row])
        press(viewer, qtbot, KEYS[label])
    curate.save(tmp_path / "verdicts.json")
    counts = curate.session.counts()
    assert counts["accepted"] + counts["rejected"] == loop.size.verdicts
    qtbot.waitUntil(lambda: not curate._waiting, timeout=60_000)
    viewer.screenshot(kept / "loop_curate.png", canvas_only=False, flash=False)

    _, train = viewer.window.add_plugin_dock_widget("t3ssfast", "Train")
    train.verdicts.set_path(tmp_path / "verdicts.json")
    train.out.set_path(tmp_path / "tuned.pt")
    train.steps.setValue(loop.size.steps)
    train.device.setCurrentText("cpu")
    train.start()
    qtbot.waitUntil(lambda: train.run_button.isEnabled(), timeout=HOUR_MS)
    assert f"of {loop.size.verdicts} verdicts, held out in turns" in train.state.text(), train.state.text()
    viewer.window.remove_dock_widget(dock)
    qtbot.wait(50)
    viewer.screenshot(kept / "loop_train.png", canvas_only=False, flash=False)

    curate.session = None
    _, detect = viewer.window.add_plugin_dock_widget("t3ssfast", "Detect")
    detect.models["verifier"].set_path(tmp_path / "tuned.pt")
    detect.device.setCurrentText("cpu")
    detect.threshold.setValue(0.01)
    for name in loop.names("others"):
        viewer.layers.clear()
        viewer.open(tmp_path / "others" / f"{name}.mrc", plugin="t3ssfast")
        detect.out.set_path(tmp_path / "others_after" / name)
        detect.start()
        qtbot.waitUntil(lambda: detect.run_button.isEnabled(), timeout=HOUR_MS)
        assert "candidates in" in detect.state.text(), detect.state.text()
    after = loop.measure(tmp_path / "others_after")
    figures = {"verdicts": counts, "train": train.state.text(), "before": before, "after": after}
    (kept / "loop_in_napari.json").write_text(json.dumps(figures, indent=1))
    assert after["f1"] > before["f1"] + 0.05
