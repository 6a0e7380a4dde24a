"""Tests that open a napari window; `nox -s napari` runs them, every other run leaves them out."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the tests of this folder where napari's plugin for pytest is missing or switched off."""
    return None if config.pluginmanager.hasplugin("napari") else True


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a viewer with a window on the screen, as key presses need it."""
    return make_napari_viewer(show=True)
