"""The unrolled membrane in a window."""

from __future__ import annotations

import numpy as np


def test_the_membrane_of_the_selected_candidate_is_unrolled(viewer, qtbot):
    viewer.open_sample("t3ssfast", "minicell")
    _, widget = viewer.window.add_plugin_dock_widget("t3ssfast", "Unrolled membrane")
    layer = viewer.layers["candidates"]
    layer.selected_data = {2}
    widget.width_nm.setValue(300)
    widget.unroll()
    (height, row, column) = widget.block.to_map(layer.data[2])[0]
    # The base lies half-way between the membranes, in the middle of the map.
    assert abs(height) < 15
    np.testing.assert_allclose((row, column), 59.5, atol=5)
    assert "candidates" in widget.state.text()
    layer.selected_data = set()
    widget.go_to(row + 2, column)
    assert layer.selected_data == {2}
    np.testing.assert_allclose(viewer.dims.point, layer.data_to_world(layer.data[2]), atol=1.36)
    widget.height_nm.setValue(20)
    assert "20 nm outside" in widget.state.text()


def test_without_candidates_nothing_is_drawn(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("t3ssfast", "Unrolled membrane")
    widget.refresh()
    widget.go_to(1, 1)
    assert widget.block is None
