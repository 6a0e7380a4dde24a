"""Bad input raises the right error, with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import (
    ConfigError,
    DeviceError,
    InputError,
    ModelError,
    ReadError,
    T3Error,
    VoxelSizeError,
)
from t3ssfast.models import ModelMetadata, save_model
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, Models, toy_classifier, toy_detect


def failing_cases(world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path) -> dict[str, Any]:
    """For each name: (arguments of detect, error, words of its message)."""
    tomogram, _, membrane = world
    data = tomogram.data
    with_nan = data.copy()
    with_nan[3, 5, 7] = np.nan
    infinite = data.copy()
    infinite[20, 0, 0] = np.inf
    (tmp_path / "truncated.mrc").write_bytes(b"")
    t3.write(tmp_path / "short.mrc", data, VOXEL)
    content = (tmp_path / "short.mrc").read_bytes()
    (tmp_path / "short.mrc").write_bytes(content[: len(content) // 2])
    t3.write(tmp_path / "complex.mrc", data, VOXEL)
    content = bytearray((tmp_path / "complex.mrc").read_bytes())
    content[12:16] = (4).to_bytes(4, "little")
    (tmp_path / "complex.mrc").write_bytes(content)
    t3.write(tmp_path / "unknown.mrc", data, VOXEL)
    content = bytearray((tmp_path / "unknown.mrc").read_bytes())
    content[40:52] = bytes(12)
    (tmp_path / "unknown.mrc").write_bytes(content)
    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    size = {"voxel_size_angstrom": VOXEL}
    return {
        "missing file": ({"tomogram": tmp_path / "none.mrc"}, ReadError, "none.mrc"),
        "empty file": ({"tomogram": tmp_path / "truncated.mrc"}, ReadError, "empty"),
        "short file": ({"tomogram": tmp_path / "short.mrc"}, ReadError, "short.mrc"),
        "wrong mode": ({"tomogram": tmp_path / "complex.mrc"}, ReadError, "complex"),
        "voxel size 0": ({"tomogram": tmp_path / "unknown.mrc"}, VoxelSizeError, "voxel_size_angstrom"),
        "no voxel size": ({"tomogram": data}, VoxelSizeError, "voxel_size_angstrom"),
        "voxel size given as 0": ({"tomogram": data, "voxel_size_angstrom": 0}, VoxelSizeError, "0"),
        "two axes": ({"tomogram": data[0], **size}, InputError, "3 axes"),
        "no axis": ({"tomogram": np.float32(1), **size}, InputError, "float32"),
        "a list": ({"tomogram": [[1.0]], **size}, InputError, "list"),
        "no voxels": ({"tomogram": data[:0], **size}, InputError, "at least one voxel"),
        "complex values": ({"tomogram": data.astype(complex), **size}, InputError, "real numbers"),
        "NaN": ({"tomogram": with_nan, **size}, InputError, "(3, 5, 7)"),
        "infinity": ({"tomogram": infinite, **size}, InputError, "(20, 0, 0)"),
        "constant": ({"tomogram": np.zeros_like(data), **size}, InputError, "constant"),
        "smaller than a window": ({"tomogram": data[:, :30], **size}, InputError, "window"),
        "smaller than a window in nm": (
            {"tomogram": data, "voxel_size_angstrom": 3.0},
            InputError,
            "window",
        ),
        "empty mask": ({"tomogram": tomogram, "membrane": np.zeros_like(membrane)}, InputError, "empty"),
        "mask of another shape": (
            {"tomogram": tomogram, "membrane": membrane[:, :, 1:]},
            InputError,
            "(24, 120, 131)",
        ),
        "mask file missing": (
            {"tomogram": tomogram, "membrane": tmp_path / "mask.mrc"},
            ReadError,
            "mask.mrc",
        ),
        "model missing": ({"tomogram": tomogram, "classifier": tmp_path / "no.pt"}, ModelError, "no.pt"),
        "model is text": (
            {"tomogram": tomogram, "classifier": tmp_path / "text.pt"},
            ModelError,
            "TorchScript",
        ),
        "model is weights": (
            {"tomogram": tomogram, "segmenter": tmp_path / "state.pt"},
            ModelError,
            "state dict",
        ),
        "unknown device": ({"tomogram": tomogram, "device": "fpga"}, DeviceError, "fpga"),
    }


NAMES = [
    "missing file",
    "empty file",
    "short file",
    "wrong mode",
    "voxel size 0",
    "no voxel size",
    "voxel size given as 0",
    "two axes",
    "no axis",
    "a list",
    "no voxels",
    "complex values",
    "NaN",
    "infinity",
    "constant",
    "smaller than a window",
    "smaller than a window in nm",
    "empty mask",
    "mask of another shape",
    "mask file missing",
    "model missing",
    "model is text",
    "model is weights",
    "unknown device",
]


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_raises_with_one_sentence(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path, name: str
) -> None:
    arguments, error, words = failing_cases(world, tmp_path)[name]
    with pytest.raises(error) as caught:
        toy_detect(**{"models": models, **arguments})
    assert isinstance(caught.value, T3Error)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_gpu_raises(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    with pytest.raises(DeviceError, match="cuda"):
        toy_detect(world[0], models, device="cuda")


def test_wrong_models_raise(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    swapped = {"segmenter": models["classifier"], "classifier": models["segmenter"]}
    with pytest.raises(ModelError, match="not a"):
        toy_detect(world[0], swapped)

    class NotANumber(nn.Module):
        """Finite on the values of the probe, NaN on dark particles."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_classifier()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + 0 * torch.sqrt(x[:, :, 25, 25] + 3.0)

    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(NotANumber(), tmp_path / "nan.pt", metadata)
    with pytest.raises(ModelError, match="NaN"):
        toy_detect(
            world[0].data[12:13], {**models, "classifier": tmp_path / "nan.pt"}, voxel_size_angstrom=VOXEL
        )


def test_invalid_options_raise() -> None:
    with pytest.raises(ConfigError, match="slab_slices"):
        DetectConfig(slab_slices=0)
