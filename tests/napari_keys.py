"""Keys pressed in a window of napari."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt


def press(viewer: Any, qtbot: Any, *keys: Any) -> None:
    """Press keys in the view, each a key or a modifier with a key."""
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_window.activateWindow()
    canvas.setFocus()
    for key in keys:
        modifier = Qt.KeyboardModifier.NoModifier
        if isinstance(key, tuple):
            modifier, key = key
        qtbot.keyClick(canvas, key, modifier)
