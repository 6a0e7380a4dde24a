"""Detect and Train in a window: the loop from a tomogram to a verifier of its own."""

from __future__ import annotations

import numpy as np
import pytest

import t3ssfast as t3
from toy import save_toy_models, save_toy_verifier, toy_tomogram


@pytest.mark.timeout(1200)
def test_detect_curate_train_detect(viewer, qtbot, tmp_path):
    tomogram, truth, _ = toy_tomogram(particles=6)
    t3.write(tmp_path / "toy.mrc", tomogram.data, tomogram.voxel_size_angstrom)
    segmenter, classifier = save_toy_models(tmp_path)
    verifier = save_toy_verifier(tmp_path)
    viewer.open(tmp_path / "toy.mrc", plugin="t3ssfast")

    _, detect = viewer.window.add_plugin_dock_widget("t3ssfast", "Detect")
    detect.out.set_path(tmp_path / "found")
    detect.models["segmenter"].set_path(segmenter)
    detect.models["classifier"].set_path(classifier)
    detect.device.setCurrentText("cpu")
    detect.start()
    assert not detect.run_button.isEnabled()
    qtbot.waitUntil(lambda: detect.run_button.isEnabled(), timeout=240_000)
    assert "6 candidates" in detect.state.text()
    assert [layer.name for layer in viewer.layers] == ["toy", "membrane", "candidates", "axes"]

    _, curate = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    for label in ("accepted", "rejected") * 3:
        curate.judge(label)
    curate.save(tmp_path / "verdicts.csv")

    _, train = viewer.window.add_plugin_dock_widget("t3ssfast", "Train")
    train.verdicts.set_path(tmp_path / "verdicts.csv")
    train.out.set_path(tmp_path / "tuned.pt")
    train.steps.setValue(2)
    train.models["segmenter"].set_path(segmenter)
    train.models["classifier"].set_path(classifier)
    train.models["verifier"].set_path(verifier)
    train.device.setCurrentText("cpu")
    train.start()
    qtbot.waitUntil(lambda: train.run_button.isEnabled(), timeout=240_000)
    assert "pairs in the right order" in train.state.text(), train.state.text()

    detect.out.set_path(tmp_path / "again")
    detect.models["verifier"].set_path(tmp_path / "tuned.pt")
    detect.threshold.setValue(0.01)
    detect.start()
    qtbot.waitUntil(lambda: detect.run_button.isEnabled(), timeout=240_000)
    found = t3.load_candidates(tmp_path / "again" / "candidates.csv")
    assert np.isfinite(found.score).all()
    assert len(truth) == 6


def test_a_cancelled_detection_leaves_the_viewer_as_it_was(viewer, qtbot, tmp_path):
    viewer.add_image(np.zeros((8, 60, 60), np.float32), scale=(1.36,) * 3, name="empty")
    _, detect = viewer.window.add_plugin_dock_widget("t3ssfast", "Detect")
    detect.out.set_path(tmp_path / "found")
    detect.start()
    detect.cancel()
    qtbot.waitUntil(lambda: detect.run_button.isEnabled(), timeout=60_000)
    assert "cancelled" in detect.state.text()
    assert [layer.name for layer in viewer.layers] == ["empty"]


def test_a_failed_detection_says_why(viewer, qtbot, tmp_path):
    viewer.add_image(np.zeros((8, 60, 60), np.float32), scale=(1.36,) * 3, name="empty")
    _, detect = viewer.window.add_plugin_dock_widget("t3ssfast", "Detect")
    detect.out.set_path(tmp_path / "found")
    detect.models["classifier"].set_path(tmp_path / "no.pt")
    detect.start()
    qtbot.waitUntil(lambda: detect.run_button.isEnabled(), timeout=240_000)
    assert "no.pt" in detect.state.text()


def test_errors_are_shown_and_not_raised(viewer, qtbot, tmp_path):
    from napari.utils.notifications import notification_manager

    _, detect = viewer.window.add_plugin_dock_widget("t3ssfast", "Detect")
    detect.run_button.click()
    assert "There is no Image layer" in str(notification_manager.records[-1].message)
    _, train = viewer.window.add_plugin_dock_widget("t3ssfast", "Train")
    train.run_button.click()
    assert "There are no results" in str(notification_manager.records[-1].message)
