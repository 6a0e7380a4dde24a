"""Widgets of the plugin; the only part of t3ssfast that imports napari and Qt."""
