"""The package's own networks by name, and their weights as safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models.axialnet import AxialKindNet, AxialNet
from t3ssfast.models.foreign.refusal import quoted
from t3ssfast.models.lenet import LeNet
from t3ssfast.models.metadata import METADATA_NAME, ModelMetadata
from t3ssfast.models.unet import UNet

__all__ = [
    "NETWORKS",
    "architecture_of",
    "build_network",
    "from_safetensors",
    "read_safetensors",
    "to_safetensors",
]

NETWORKS: dict[str, type[nn.Module]] = {
    "LeNet": LeNet,
    "UNet": UNet,
    "AxialNet": AxialNet,
    "AxialKindNet": AxialKindNet,
}
# Bounds the memory that a file can make a network take: a network may have no more parameters than the file.
MAX_WIDTH = 1 << 14
MAX_DEPTH = 8


def architecture_of(network: str, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return name and options of one of the package's networks, from the shapes of its weights.

    `network` is the name of the module's class. None: it is not one of the package's.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        if network == "LeNet":
            first, second = (shapes[f"features.{k}.weight"][0] for k in (0, 3))
            hidden = [shapes[f"classifier.{k}.weight"] for k in (1, 3, 5)]
            # Poolings round down: the smallest window with these layers.
            window = (2 * math.isqrt(hidden[0][1] // second) + 4) * 2 + 4
            return {
                "name": network,
                "channels": [first, second],
                "hidden": [hidden[0][0], hidden[1][0]],
                "classes": hidden[2][0],
                "window": window,
            }
        if network == "UNet":
            depth = sum(name.startswith("up.") and name.endswith(".weight") for name in shapes)
            base, slices = shapes["head.weight"][1], shapes["down.0.0.weight"][1]
            return {"name": network, "depth": depth, "base": base, "slices": slices}
        if network in ("AxialNet", "AxialKindNet"):
            channels = [shapes[f"features.{k}.weight"][0] for k in (0, 3, 7, 11)]
            hidden_size, inputs = shapes["features.17.weight"]
            height = 8 * math.isqrt(2 * (inputs // channels[-1]))
            options = {"name": network, "channels": channels, "hidden": hidden_size, "height": height}
            if network == "AxialKindNet":
                options["kinds"] = shapes["other_kinds.weight"][0] + 1
            return options
    except (KeyError, IndexError, ZeroDivisionError, ValueError):
        pass
    return None


def build_network(architecture: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Build one of the package's networks with given weights.

    Raises
    ------
    ModelError
        The architecture is unknown or has unusable options, or the weights are not its own.
    """
    options = {key: value for key, value in architecture.items() if key != "name"}
    network = NETWORKS.get(str(architecture.get("name")))
    try:
        if network is None or not all(_is_width(value) for value in options.values()):
            raise ConfigError("there is no such network")
        if not 1 <= options.get("depth", 1) <= MAX_DEPTH:
            raise ConfigError("it is too deep")
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
        # Without memory for weights: the file's own are put in their place.
        with torch.device("meta"):
            module = network(**options)
        expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        if expected != {key: tuple(tensor.shape) for key, tensor in state.items()}:
            raise ConfigError("its weights have other names or shapes")
        if any(state[key].dtype != own.dtype for key, own in module.state_dict().items()):
            raise ConfigError("its weights have another dtype")
    except (ConfigError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{name} does not hold the network that its metadata name ({quoted(str(error))}); save the model "
            "again with "
            "t3ssfast.models.save_model."
        ) from error
    module.load_state_dict(dict(state), strict=True, assign=True)
    return module


def _is_width(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return 1 <= len(values) <= 8 and all(type(v) is int and 1 <= v <= MAX_WIDTH for v in values)


def to_safetensors(module: nn.Module, metadata: ModelMetadata) -> bytes:
    """Return a safetensors file with the weights of one of the package's networks and its metadata."""
    architecture = architecture_of(type(module).__name__, module.state_dict())
    if architecture is None or type(module) not in NETWORKS.values():
        raise ModelError(
            f"{type(module).__name__} is not a network of t3ssfast, which alone can be saved as safetensors; "
            'give a path that ends in ".pt".'
        )
    document = replace(metadata, architecture=architecture).to_json()
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    return save(tensors, metadata={METADATA_NAME: document})


def from_safetensors(content: bytes, name: str) -> tuple[nn.Module, ModelMetadata]:
    """Build the network of a safetensors file; `ModelError` if it is not one of this package."""
    metadata, state = read_safetensors(content, name)
    if metadata is None:
        raise ModelError(
            f"{name} holds weights without t3ssfast metadata; name their network with t3ssfast convert, or "
            "save the model with t3ssfast.models.save_model."
        )
    if metadata.architecture is None:
        raise ModelError(f"{name} does not name its network; save it with t3ssfast.models.save_model.")
    return build_network(metadata.architecture, state, name), replace(metadata, architecture=None)


def read_safetensors(content: bytes, name: str) -> tuple[ModelMetadata | None, dict[str, Tensor]]:
    """Return metadata (None if there are none) and weights; `ModelError` if it is no safetensors file."""
    try:
        # The header's length is checked here, since it says how much is parsed.
        length = int.from_bytes(content[:8], "little")
        if length > min(len(content) - 8, 1 << 20):
            raise ValueError("its header is too long")
        header = json.loads(content[8 : 8 + length])
        document = header.get("__metadata__", {}).get(METADATA_NAME)
        state = load(content)
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        reason = quoted(str(error))
        raise ModelError(f"{name} is not a safetensors file ({reason}); give a model of t3ssfast.") from error
    return ModelMetadata.from_json(document) if isinstance(document, str) else None, state
