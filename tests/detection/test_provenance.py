"""What a result says of where it came from."""

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


def test_a_file_is_known_by_its_bytes_and_an_array_by_its_values(tmp_path) -> None:
    data = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    t3.write(tmp_path / "007.mrc", data, 13.6)
    tomogram = t3.read(tmp_path / "007.mrc")
    file = describe_input(tmp_path / "007.mrc", tomogram)
    assert file["sha256"] == hashlib.sha256((tmp_path / "007.mrc").read_bytes()).hexdigest()
    assert (file["name"], file["shape_zyx"]) == ("007", [3, 4, 5])
    array = describe_input(tomogram, tomogram)
    assert array["path"] is None
    assert array["sha256"] == hashlib.sha256(data.tobytes()).hexdigest()
    turned = Tomogram(np.asfortranarray(data), 13.6)
    assert describe_input(turned, turned)["sha256"] == array["sha256"], "the order in memory is no value"


def test_everything_is_plain_json() -> None:
    bundled = load_model(None, model_kind="classifier")
    said = {"software": describe_software(), "model": describe_model(bundled)}
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["model"]["sha256"] == bundled.sha256
    assert describe_model(None) is None


def test_the_plan_is_told_for_the_padded_slices() -> None:
    bundled = load_model(None, model_kind="classifier")
    tomogram = Tomogram(np.random.default_rng(1).normal(size=(2, 60, 70)).astype(np.float32), 13.6)
    grid = PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=13.6, normalisation=bundled.metadata.normalisation
    )
    words = describe_plan(grid, bundled, 0.5, torch.device("cpu"))
    assert "4,200 of 8,400 windows" in words
