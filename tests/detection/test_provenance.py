"""Provenance of a detection."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch

import t3ssfast as t3
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.provenance import describe_input, describe_model, describe_plan, describe_software
from t3ssfast.models import load_model
from t3ssfast.tomogram import Tomogram


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
