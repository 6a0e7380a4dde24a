"""ChimeraX scripts: volumes, markers and arrows."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from t3ssfast.errors import ConfigError
from t3ssfast.io.particles import export


def numbers(text):
    return [float(word) for word in re.split(r"[ ,]+", text.strip())]


def test_script_opens_volumes_and_shows_markers_and_arrows(tmp_path, make_candidates):
    candidates = make_candidates(5, kind=np.array(["t3ss", "flagellar_motor", "t3ss", "t3ss", "t3ss"]))
    tomogram = tmp_path / "data" / "TS 'one'.mrc"
    written = export(
        candidates, tmp_path / "view.cxc", "chimerax", tomogram=tomogram, membrane=tmp_path / "membrane.mrc"
    )
    assert written == [tmp_path / "view.cxc", tmp_path / "view_arrows.bild"]
    lines = (tmp_path / "view.cxc").read_text().splitlines()
    opening = [re.fullmatch(r'open (".*") id \d+', line) for line in lines]
    opened = [json.loads(match[1]) for match in opening if match]
    # Relative to the folder of the script, which can then be moved with them.
    assert opened == ["data/TS 'one'.mrc", "membrane.mrc", "view_arrows.bild"]
    volumes = [line for line in lines if line.startswith("volume")]
    assert all("originIndex 0,0,0 voxelSize 13.6" in line for line in volumes)
    markers = [re.match(r"marker #(\d+) position (\S+) ", line) for line in lines]
    position = {model: [] for model in "45"}
    for match in filter(None, markers):
        position[match[1]].append(numbers(match[2]))
    expected = candidates.centre_zyx[:, ::-1] * 13.6
    np.testing.assert_allclose(position["4"], expected[[0, 2, 3, 4]], atol=0.01)
    np.testing.assert_allclose(position["5"], expected[[1]], atol=0.01)
    lines = (tmp_path / "view_arrows.bild").read_text().splitlines()
    arrows = [line for line in lines if line.startswith(".arrow")]
    ends = np.array([numbers(line.removeprefix(".arrow"))[:6] for line in arrows]).reshape(-1, 2, 3)
    direction = (ends[:, 1] - ends[:, 0]) / 400
    np.testing.assert_allclose(direction, candidates.normal_zyx[[0, 2, 3, 4, 1], ::-1], atol=1e-3)


def test_names_cannot_add_commands(tmp_path, make_candidates):
    candidates = make_candidates(1, tomogram_name="a\nclose", kind=np.array(['b"; close; \n']))
    export(candidates, tmp_path / "a.cxc", "chimerax", tomogram=tmp_path / 'c"; close; "\n.mrc')
    lines = (tmp_path / "a.cxc").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"#", "open", "volume", "marker", "rename", "view"}
    assert not any(re.search(r'^[^"]*("[^"\\]*(\\.[^"\\]*)*"[^"]*)*;', line) for line in lines)


def test_script_without_candidates_or_volumes(tmp_path, make_candidates):
    export(make_candidates(0), tmp_path / "a.cxc", "chimerax")
    assert (tmp_path / "a.cxc").read_text().splitlines()[-1] == "view"


def test_unusable_arguments(tmp_path, make_candidates):
    with pytest.raises(ConfigError, match=r"\.cxc"):
        export(make_candidates(1), tmp_path / "a.txt", "chimerax")
    with pytest.raises(ConfigError, match="ChimeraX"):
        export(make_candidates(1), tmp_path / "a.csv", "csv", tomogram="a.mrc")
    several = [make_candidates(1, tomogram_name=name) for name in "ab"]
    with pytest.raises(ConfigError, match="2 were given"):
        export(several, tmp_path / "a.cxc", "chimerax")
