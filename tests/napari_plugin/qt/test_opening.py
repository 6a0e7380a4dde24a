"""napari finds the plugin by its entry point, and opens what it reads."""

from __future__ import annotations

import numpy as np

import t3ssfast as t3


def test_the_sample_opens(viewer):
    viewer.open_sample("t3ssfast", "minicell")
    assert [layer.name for layer in viewer.layers] == ["minicell", "membrane", "candidates", "axes"]
    assert len(viewer.layers["candidates"].data) == 10
    np.testing.assert_allclose(viewer.layers["candidates"].scale, 1.36)


def test_files_open_without_naming_the_plugin(viewer, tmp_path, make_candidates):
    t3.write(
        tmp_path / "TS_1.mrc", np.random.default_rng(0).normal(size=(6, 20, 30)).astype(np.float32), 13.6
    )
    t3.export(make_candidates(5), tmp_path / "found.star", "relion5")
    viewer.open(tmp_path / "TS_1.mrc", plugin=None)
    viewer.open(tmp_path / "found.star", plugin=None)
    assert [layer.name for layer in viewer.layers] == ["TS_1", "candidates", "axes"]
    assert viewer.layers["candidates"].features["score"].is_monotonic_decreasing
