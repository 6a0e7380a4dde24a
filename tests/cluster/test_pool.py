"""One file with the candidates of a whole data set, for RELION and for averaging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.cluster.pool import POOLED_FILE, write_pooled
from t3ssfast.detection.result import Detection
from t3ssfast.errors import ReadError

SHAPE, VOXEL = (24, 60, 64), 13.6


def save_result(out: Path, name: str, count: int, seed: int, sign: int = 1) -> Candidates:
    """Save the results of a tomogram as a detection does."""
    rng = np.random.default_rng(seed)
    candidates = Candidates(
        rng.uniform(16, 24, (count, 3)) * (0.6, 1, 1),
        np.sort(rng.random(count))[::-1],
        rng.normal(size=(count, 3)),
        VOXEL,
        SHAPE,
        name,
    )
    described = {"name": name, "sha256": name, "shape_zyx": SHAPE, "voxel_size_angstrom": VOXEL}
    provenance: dict[str, Any] = {"input": described, "contrast": {"sign": sign}}
    Detection(candidates, None, provenance | {"counts": {"candidates": count}}).save(out / name)
    return candidates


def test_the_pooled_file_has_the_rows_of_every_tomogram(tmp_path):
    saved = {
        name: save_result(tmp_path, name, count, count) for name, count in (("a", 5), ("b", 0), ("c", 3))
    }
    (path,) = write_pooled(tmp_path, list(saved))
    pooled = {found.tomogram_name: found for found in t3.load_all_candidates(path)}
    for name, candidates in saved.items():
        alone = t3.load_candidates(tmp_path / name / "candidates.star")
        assert len(pooled[name]) == len(candidates)
        np.testing.assert_allclose(pooled[name].centre_zyx, candidates.centre_zyx, atol=1e-3)
        for field in ("centre_zyx", "score", "normal_zyx"):
            np.testing.assert_allclose(
                getattr(pooled[name], field), getattr(alone, field), atol=1e-5, err_msg=f"{name} {field}"
            )


def test_the_optimisation_set_comes_with_the_pixel_size_and_goes_without(tmp_path):
    save_result(tmp_path, "a", 5, 0)
    write_pooled(tmp_path, ["a"], 3.4)
    optimisation_set = (tmp_path / "optimisation_set.star").read_text()
    assert str(tmp_path / POOLED_FILE) in optimisation_set
    assert str(tmp_path / "tomograms.star") in optimisation_set
    write_pooled(tmp_path, ["a"])
    assert (tmp_path / POOLED_FILE).exists()
    assert not (tmp_path / "optimisation_set.star").exists()
    write_pooled(tmp_path, [])
    assert not (tmp_path / POOLED_FILE).exists()


def test_damaged_results_are_named(tmp_path):
    save_result(tmp_path, "a", 2, 0)
    (tmp_path / "a" / "provenance.json").write_text("{")
    with pytest.raises(ReadError, match=r"a: its provenance\.json is missing or damaged"):
        write_pooled(tmp_path, ["a"])


def test_average_takes_the_output_folder(tmp_path):
    """Candidates from the pooled file, and the contrast that was found for each tomogram."""
    rng = np.random.default_rng(1)
    paths = []
    for number, name in enumerate(("TS_1", "TS_2")):
        paths.append(tmp_path / f"{name}.mrc")
        t3.write(paths[-1], rng.normal(size=SHAPE).astype(np.float32), VOXEL)
        save_result(tmp_path / "out", name, 6, number, sign=1 - 2 * number)
    write_pooled(tmp_path / "out", ["TS_1", "TS_2"])
    options = ["--box", "16", "--iterations", "1", "--threads", "1", "--device", "cpu", "--json"]
    arguments = ["average", *map(str, paths), "-c", str(tmp_path / "out"), "-o", str(tmp_path / "average")]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["particles"] == 12
    # The contrast was read from the results of each, and not looked for.
    assert "protein is" not in result.stderr
