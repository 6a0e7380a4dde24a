"""Verdicts by key and mouse in a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

import t3ssfast as t3
from napari_keys import press
from t3ssfast.candidates import Candidates
from t3ssfast.napari_plugin.layers import METADATA_KEY, axes_layer, candidates_layer
from t3ssfast.napari_plugin.widgets.viewing import add_layers


@pytest.fixture
def curate(viewer):
    """Return the widget over the sample, with the sample's layers in the viewer."""
    viewer.open_sample("t3ssfast", "minicell")
    _, widget = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    yield widget
    # Closing must not ask.
    widget.session = None


def verdicts(viewer):
    return list(viewer.layers["candidates"].features["verdict"])


@pytest.mark.parametrize("active", ["minicell", "membrane", "candidates", "axes"])
def test_one_key_a_verdict_whatever_layer_is_active(viewer, curate, qtbot, active):
    viewer.layers.selection.active = viewer.layers[active]
    press(viewer, qtbot, Qt.Key.Key_A, Qt.Key.Key_R, Qt.Key.Key_U)
    order = [row for _, row in curate.session.order]
    assert [verdicts(viewer)[row] for row in order[:4]] == ["accepted", "rejected", "unsure", ""]
    press(viewer, qtbot, Qt.Key.Key_Z, Qt.Key.Key_Z)
    assert [verdicts(viewer)[row] for row in order[:4]] == ["accepted", "", "", ""]
    press(viewer, qtbot, (Qt.KeyboardModifier.ShiftModifier, Qt.Key.Key_Z))
    assert verdicts(viewer)[order[1]] == "rejected"
    press(viewer, qtbot, Qt.Key.Key_N, Qt.Key.Key_N, Qt.Key.Key_B)
    assert curate.session.place == 2
    colours = viewer.layers["candidates"].border_color
    assert not np.allclose(colours[order[0]], colours[order[1]])


def test_buttons_leave_the_keys_to_the_viewer(viewer, curate, qtbot):
    qtbot.mouseClick(curate.verdicts["accepted"], Qt.MouseButton.LeftButton)
    press(viewer, qtbot, Qt.Key.Key_R)
    assert curate.session.counts() == {"accepted": 1, "rejected": 1, "unsure": 0, "": 8}
    assert "1 accepted, 1 rejected" in curate.state.text()


def test_threshold_hides_candidates(viewer, curate):
    layer = viewer.layers["candidates"]
    scores = np.linspace(1, 0.1, 10, dtype=np.float32)
    layer.metadata[METADATA_KEY]["candidates"] = replace(
        layer.metadata[METADATA_KEY]["candidates"], score=scores
    )
    curate.start()
    curate.threshold.setValue(0.55)
    assert layer.shown.sum() == (scores >= 0.55).sum() == len(curate.session.order) == 5


def test_a_click_adds_a_pick_with_the_axis_of_the_membrane(viewer, curate, qtbot):
    truth = viewer.layers["candidates"].metadata[METADATA_KEY]["candidates"]
    curate.add_at(truth.centre_zyx[3])
    added = curate.session.labelled()[0][[10]]
    assert added.label.tolist() == ["accepted"]
    assert added.normal_zyx[0] @ truth.normal_zyx[3] > np.cos(np.radians(15))
    assert len(viewer.layers["candidates"].data) == 11
    assert viewer.layers["candidates"].selected_data == {10}
    press(viewer, qtbot, Qt.Key.Key_Z)
    assert curate.session.counts()["accepted"] == 0
    assert viewer.layers["candidates"].shown.sum() == 10


def test_a_pick_is_added_where_nothing_was_found(viewer, qtbot):
    viewer.open_sample("t3ssfast", "minicell")
    truth = viewer.layers["candidates"].metadata[METADATA_KEY]["candidates"]
    for name in ("candidates", "axes"):
        viewer.layers.remove(name)
    nothing = Candidates.empty(truth.voxel_size_angstrom)
    add_layers(viewer, [candidates_layer(nothing), axes_layer(nothing)])
    _, curate = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    curate.add_at(truth.centre_zyx[3])
    assert verdicts(viewer) == ["accepted"]
    assert len(viewer.layers["axes"].data) == 1
    press(viewer, qtbot, Qt.Key.Key_Z)
    assert not viewer.layers["candidates"].shown.any()
    curate.session = None


def test_the_mouse_adds_only_while_the_button_is_pressed(viewer, curate):
    class Event:
        position = tuple(viewer.layers["candidates"].data_to_world(viewer.layers["candidates"].data[2]))

    curate._clicked(viewer, Event())
    assert curate.session.counts()[""] == 10
    curate.toggle_adding()
    curate._clicked(viewer, Event())
    np.testing.assert_allclose(
        curate.session.labelled()[0].centre_zyx[10], viewer.layers["candidates"].data[2], atol=1e-3
    )


def test_verdicts_are_saved_and_opened(viewer, curate, tmp_path, qtbot):
    press(viewer, qtbot, Qt.Key.Key_A, Qt.Key.Key_R)
    for name in ("a.json", "a.csv", "a.star"):
        curate.save(tmp_path / name)
        (saved,) = t3.load_all_curations(tmp_path / name)
        assert (saved.label == "accepted").sum() == (saved.label == "rejected").sum() == 1
    curate.save(tmp_path / "picks")
    assert len(list(tmp_path.glob("picks/*/Picks/*.json"))) == 1
    press(viewer, qtbot, Qt.Key.Key_Z, Qt.Key.Key_Z)
    # The last curation file gets every further verdict; the others keep what they have.
    (kept,) = t3.load_all_curations(tmp_path / "a.star")
    assert not kept.label.astype(bool).any()
    curate.open_verdicts(tmp_path / "a.csv")
    assert curate.session.counts() == {"accepted": 1, "rejected": 1, "unsure": 0, "": 8}


def test_the_stepper_crosses_tomograms(viewer, tmp_path, make_candidates, qtbot):
    for name in ("TS_1", "TS_2"):
        found = make_candidates(3, centre_zyx=np.full((3, 3), 4.0) + np.eye(3), tomogram_shape=(9, 30, 40))
        (tmp_path / name).mkdir()
        t3.export(replace(found, tomogram_name=name), tmp_path / name / "candidates.csv", "csv")
    # The tomograms are missing, which the reader reports as a warning.
    viewer.open(tmp_path, plugin="t3ssfast")
    _, widget = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    widget.order.setCurrentText("by tomogram and score")
    press(viewer, qtbot, *[Qt.Key.Key_A] * 4)
    assert viewer.layers["candidates"].metadata[METADATA_KEY]["candidates"].tomogram_name == "TS_2"
    assert [label for label in verdicts(viewer) if label] == ["accepted"]
    press(viewer, qtbot, *[Qt.Key.Key_Z] * 4)
    assert viewer.layers["candidates"].metadata[METADATA_KEY]["candidates"].tomogram_name == "TS_1"
    assert widget.session.counts()[""] == 6


def test_without_candidates_the_widget_says_what_to_open(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("t3ssfast", "Curate")
    assert "open a folder of results" in widget.state.text()
    for action in (widget.undo, widget.redo):
        action()
