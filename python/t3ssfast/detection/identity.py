"""The identity of a detection: what decides about its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.detection.provenance import describe_input, describe_software
from t3ssfast.detection.tiles import tile_side
from t3ssfast.runtime.checkpoint import key_of
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Tomogram

__all__ = ["Identity", "identify"]

# Options that decide about time and memory alone.
OPTIONS_WITHOUT_EFFECT = ("threads", "slab_slices", "memory_budget_bytes")


@dataclass(frozen=True)
class Identity:
    """What decides about the result of a detection.

    Attributes
    ----------
    tomogram, membrane
        As the provenance describes them; no membrane where none was given.
    key
        SHA-256 of the contents of tomogram, mask and models, of the options that have an effect, and of the
        version of this package.
    exact_key
        Also of what changes rounding: device, processor, libraries and the size of tiles.
    """

    tomogram: dict[str, Any]
    membrane: dict[str, Any] | None
    key: str
    exact_key: str


@retry_on_oom("reading the tomogram")
def identify(inputs: DetectionInputs, stages: Stages) -> Identity:
    """Compute the identity of a detection; reads the whole tomogram."""
    with stages("checksum"):
        tomogram = describe_input(inputs.source, inputs.tomogram)
        membrane = None
        if inputs.mask is not None:
            as_tomogram = Tomogram(inputs.mask, inputs.tomogram.voxel_size_angstrom, inputs.tomogram.name)
            membrane = describe_input(inputs.membrane, as_tomogram)
    software = describe_software()
    native = software["native"]
    content = {
        "input": {name: value for name, value in tomogram.items() if name != "path"},
        "membrane": None if membrane is None else membrane["sha256"],
        "models": [None if model is None else model.sha256 for model in inputs.models],
        "config": {
            name: value
            for name, value in inputs.config.to_dict().items()
            if name not in OPTIONS_WITHOUT_EFFECT
        },
        "version": software["t3ssfast"],
    }
    device = inputs.device
    rounding = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": native["simd"],
        "libraries": [software["torch"], software["numpy"], native["openvino"]],
        "tile": tile_side(inputs.config),
    }
    return Identity(tomogram, membrane, key_of(content), key_of(content, rounding))
