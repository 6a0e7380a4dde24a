"""Pictures of the window for the documentation; T3SSFAST_SCREENSHOTS names a folder to keep them in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def test_curation_and_unrolled_membrane(viewer, qtbot, tmp_path):
    folder = Path(os.environ.get("T3SSFAST_SCREENSHOTS", tmp_path))
    viewer.open_sample("t3ssfast", "minicell")
    viewer.window.resize(1500, 900)
    dock, curate = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    for label in ("accepted", "accepted", "rejected", "unsure", "accepted"):
        curate.judge(label)
    qtbot.waitUntil(lambda: not curate._waiting, timeout=60_000)
    picture = viewer.screenshot(folder / "curate.png", canvas_only=False, flash=False)
    # The three colours of verdicts are on the screen.
    pixels = picture[..., :3].reshape(-1, 3).astype(int)
    for colour in ((0, 158, 115), (213, 94, 0), (204, 121, 167)):
        assert (np.abs(pixels - colour).max(axis=1) < 12).sum() > 100
    viewer.window.remove_dock_widget(dock)
    curate.session = None
    _, unrolled = viewer.window.add_plugin_dock_widget("t3ssfast", "Unrolled membrane")
    unrolled.width_nm.setValue(400)
    unrolled.unroll()
    unrolled.height_nm.setValue(5)
    qtbot.wait(50)
    picture = viewer.screenshot(folder / "unrolled.png", canvas_only=False, flash=False)
    assert picture.shape[1] >= 1000
    assert unrolled.grab().toImage().width() >= 320
