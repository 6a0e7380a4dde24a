"""Provenance of a detection."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import t3ssfast as t3
from t3ssfast.detection import provenance, segment
from t3ssfast.detection.folder import run_to_folder
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.provenance import describe_input, describe_model, describe_plan, describe_software
from t3ssfast.errors import ReadError
from t3ssfast.io import checksum_cache
from t3ssfast.models import load_model
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, Models, toy_detect, toy_tomogram


def test_checksums_are_of_file_bytes_and_of_array_values(tmp_path) -> None:
    data = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    t3.write(tmp_path / "007.mrc", data, 13.6)
    tomogram = t3.read(tmp_path / "007.mrc")
    file = describe_input(tmp_path / "007.mrc", tomogram)
    assert file["sha256"] == hashlib.sha256((tmp_path / "007.mrc").read_bytes()).hexdigest()
    assert (file["name"], file["shape_zyx"]) == ("007", [3, 4, 5])
    array = describe_input(tomogram, tomogram)
    assert array["path"] is None
    assert array["sha256"] == hashlib.sha256(data.tobytes()).hexdigest()
    fortran = Tomogram(np.asfortranarray(data), 13.6)
    assert describe_input(fortran, fortran)["sha256"] == array["sha256"], "memory order must not matter"


@pytest.mark.parametrize("in_folder", [False, True])
def test_the_checksum_is_computed_beside_the_work(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch, in_folder: bool
) -> None:
    path = tmp_path / "TS_01.mrc"
    t3.write(path, toy_tomogram((4, 90, 100))[0].data, VOXEL)
    began = threading.Event()
    contrast, plain = segment.contrast_from_segmenter, provenance.file_sha256

    def find_contrast(*arguments: Any) -> Any:
        began.set()
        return contrast(*arguments)

    def file_sha256(given: Path, before_chunk: Callable[[], None]) -> str:
        assert began.wait(60), "the detection waits for the checksum"
        return plain(given, before_chunk)

    monkeypatch.setattr(segment, "contrast_from_segmenter", find_contrast)
    for module in (provenance, checksum_cache):
        monkeypatch.setattr(module, "file_sha256", file_sha256)
    if in_folder:
        found, _ = run_to_folder(tmp_path / "out", path, progress=False, device="cpu", **models)
    else:
        found = toy_detect(path, models)
    assert found.provenance["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "checksum" in found.provenance["seconds"]


def test_a_detection_that_fails_ends_the_checksum(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    t3.write(tmp_path / "TS_01.mrc", toy_tomogram((4, 90, 100))[0].data, VOXEL)
    began, ended = threading.Event(), []

    def endless(path: Path, before_chunk: Callable[[], None]) -> str:
        try:
            while True:
                before_chunk()
                began.set()
        finally:
            ended.append(path)

    def fail(*arguments: Any) -> None:
        assert began.wait(60)
        raise OSError("the network is gone")

    monkeypatch.setattr(provenance, "file_sha256", endless)
    monkeypatch.setattr(segment, "contrast_from_segmenter", fail)
    with pytest.raises(OSError, match="the network is gone"):
        toy_detect(tmp_path / "TS_01.mrc", models)
    assert len(ended) == 1


def test_a_file_that_cannot_be_read_to_its_end_is_reported(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    t3.write(tmp_path / "TS_01.mrc", toy_tomogram((4, 90, 100))[0].data, VOXEL)

    def fail(path: Path, before_chunk: Callable[[], None]) -> str:
        raise ReadError("reading failed.")

    monkeypatch.setattr(provenance, "file_sha256", fail)
    with pytest.raises(ReadError, match=r"reading failed\."):
        toy_detect(tmp_path / "TS_01.mrc", models)


def test_descriptions_are_valid_json() -> None:
    bundled = load_model(None, model_kind="classifier")
    described = {"software": describe_software(), "model": describe_model(bundled)}
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["model"]["sha256"] == bundled.sha256
    assert describe_model(None) is None


def test_plan_counts_one_window_per_voxel() -> None:
    bundled = load_model(None, model_kind="classifier")
    tomogram = Tomogram(np.random.default_rng(1).normal(size=(2, 60, 70)).astype(np.float32), 13.6)
    grid = PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=13.6, normalisation=bundled.metadata.normalisation
    )
    description = describe_plan(grid, bundled, 0.5, torch.device("cpu"))
    assert "4,200 of 8,400 windows" in description
