"""Candidates do not depend on slabs, tiles, threads, memory, engines and memory layouts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection import segment_slice, slabs
from t3ssfast.detection.config import DetectConfig
from t3ssfast.kernels._native import openvino_version
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, Models, same_candidates, toy_detect, toy_tomogram


@pytest.mark.parametrize("slab_slices", [1, 7, 1000])
def test_slabs_do_not_change_the_result(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], slab_slices: int
) -> None:
    whole = toy_detect(world[0], models)
    cut = toy_detect(world[0], models, config=DetectConfig(slab_slices=slab_slices))
    same_candidates(whole, cut)
    np.testing.assert_array_equal(whole.membrane, cut.membrane)


def test_memory_budget_and_threads_do_not_change_the_result(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    before = torch.get_num_threads()
    small = DetectConfig(memory_budget_bytes=64 << 20, threads=2)
    same_candidates(toy_detect(world[0], models), toy_detect(world[0], models, config=small))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "engine",
    [
        "torch",
        pytest.param(
            "openvino",
            marks=pytest.mark.skipif(openvino_version() is None, reason="OpenVINO is not installed"),
        ),
    ],
)
def test_tiles_threads_and_engines_move_no_candidate(
    world: tuple[Tomogram, Candidates, np.ndarray], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bundled U-Net, whose tiles differ by rounding, and slices of more than one tile."""
    tomogram = replace(world[0], data=np.tile(world[0].data[4:10], (1, 3, 4)))
    options = {"score_threshold": 0.001, "verify": False, "contrast": "dark", "membrane_min_area_nm2": 100.0}

    def found(**config: Any) -> t3.Detection:
        return toy_detect(tomogram, {}, config=DetectConfig(**options, **config))

    whole = found(segmenter_engine="torch", threads=1)
    assert len(whole.candidates) > 0
    monkeypatch.setattr(slabs, "tile_side", lambda config: 304)
    monkeypatch.setattr(segment_slice, "MIN_TILE", 304)
    for config in ({"threads": 1}, {"threads": 2, "slab_slices": 2}):
        other = found(segmenter_engine=engine, **config)
        assert other.provenance["models"]["segmenter"]["engine"] == engine
        assert len(other.candidates) == len(whole.candidates)
        np.testing.assert_allclose(other.candidates.centre_zyx, whole.candidates.centre_zyx, atol=0.05)
        np.testing.assert_allclose(other.candidates.score, whole.candidates.score, atol=1e-4)


def test_memory_stays_within_the_budget(models: Models, tmp_path: Path) -> None:
    """With a file larger than the budget; memory that libraries take on first use is taken before."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is read from /proc")
    small, _, _ = toy_tomogram(shape=(24, 120, 132))
    volume = np.random.default_rng(1).standard_normal((180, 450, 500), np.float32)
    volume[90:114, 200:320, 100:232] = small.data
    t3.write(tmp_path / "small.mrc", small.data, VOXEL)
    t3.write(tmp_path / "large.mrc", volume, VOXEL)
    budget = 128 << 20
    assert volume.nbytes > 1.2 * budget
    code = (
        "import sys, t3ssfast as t3\n"
        "def peak():\n"
        "    with open('/proc/self/status') as file:\n"
        "        return next(int(x.split()[1]) << 10 for x in file if x.startswith('VmHWM'))\n"
        "def find(path):\n"
        "    options = {'contrast': 'dark', 'threads': 1, 'score_threshold': 0.25}\n"
        "    config = t3.DetectConfig(memory_budget_bytes=int(sys.argv[5]), **options)\n"
        "    models = {'segmenter': sys.argv[3], 'classifier': sys.argv[4]}\n"
        "    return t3.detect(path, **models, config=config, device='cpu', progress=False)\n"
        "find(sys.argv[1])\n"
        "before = peak()\n"
        "assert len(find(sys.argv[2]).candidates) == 3\n"
        "print(peak() - before)\n"
    )
    arguments = [tmp_path / "small.mrc", tmp_path / "large.mrc", models["segmenter"], models["classifier"]]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments), str(budget)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < budget


def test_file_and_array_give_the_same(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram = world[0]
    t3.write(tmp_path / "toy.mrc", tomogram.data, VOXEL)
    array = toy_detect(tomogram.data, models, voxel_size_angstrom=VOXEL)
    file = toy_detect(tmp_path / "toy.mrc", models)
    same_candidates(array, file)
    assert file.candidates.tomogram_name == "toy"
    assert file.provenance["input"]["sha256"] != array.provenance["input"]["sha256"]
    # Overrides the voxel size of the header.
    other = toy_detect(tmp_path / "toy.mrc", models, voxel_size_angstrom=VOXEL * 1.2)
    assert other.candidates.voxel_size_angstrom == pytest.approx(VOXEL * 1.2)


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(np.float64),
        lambda a: a.astype(">f4"),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    ],
)
def test_memory_layout_does_not_matter(
    models: Models,
    world: tuple[Tomogram, Candidates, np.ndarray],
    convert: Callable[[np.ndarray], np.ndarray],
) -> None:
    data = convert(world[0].data)
    data.flags.writeable = False
    same_candidates(toy_detect(data, models, voxel_size_angstrom=VOXEL), toy_detect(world[0], models))


def test_integer_tomograms(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, truth, _ = world
    data = np.clip(np.round(tomogram.data * 20), -128, 127).astype(np.int8)
    found = t3.evaluate(toy_detect(data, models, voxel_size_angstrom=VOXEL).candidates, truth, 120.0)
    assert found.true_positives == 3
