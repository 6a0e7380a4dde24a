"""Model files from one format to the other: TorchScript and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.io import display_path
from t3ssfast.models.architectures import NETWORKS, architecture_of, build_network, read_safetensors
from t3ssfast.models.checks import fitted, metadata_of, prepare, refused
from t3ssfast.models.fitting import ModelReading
from t3ssfast.models.foreign import Archive, Refusal
from t3ssfast.models.loading import read_model_file
from t3ssfast.models.metadata import METADATA_NAME, VERIFIER_ANSWERS, ModelMetadata
from t3ssfast.models.saving import SAFETENSORS, TORCHSCRIPT, save_model
from t3ssfast.tomogram import StrPath

__all__ = ["KIND_OF_NETWORK", "convert_model"]

# What each of the package's networks is used as.
KIND_OF_NETWORK = {"LeNet": "classifier", "UNet": "segmenter", "AxialNet": "verifier"}


def convert_model(
    source: StrPath, out: StrPath, *, network: str | None = None, voxel_size_angstrom: float | None = None
) -> ModelMetadata:
    """Convert a model file from TorchScript to safetensors or back, with its metadata.

    Parameters
    ----------
    source
        Safetensors file or TorchScript file with weights of LeNet, UNet or AxialNet. It is read without
        running any code.
    out
        File to write, atomically; safetensors if it ends in ".safetensors", TorchScript if in ".pt".
    network
        Name of the network whose weights `source` has, if it holds no metadata that name it.
    voxel_size_angstrom
        Voxel size of the training data, if `source` has no metadata; None: the model accepts any.

    Returns
    -------
    The metadata of the model.

    Raises
    ------
    ModelError
        `source` cannot be read, has weights of no network of this package, or PyTorch cannot write
        TorchScript.
    ConfigError
        `out` has another suffix, or that of `source`; or options contradict the metadata of `source`.
    """
    path, target = Path(source), Path(out)
    name = display_path(path)
    suffixes = path.suffix.lower(), target.suffix.lower()
    if suffixes[1] not in (SAFETENSORS, TORCHSCRIPT):
        raise ConfigError(
            f"{display_path(target)} ends in neither {SAFETENSORS} nor {TORCHSCRIPT}; give a name that "
            "ends in one of them."
        )
    if suffixes[0] == suffixes[1]:
        raise ConfigError(
            f"{name} and {display_path(target)} are both {suffixes[0]}; give a name with the other suffix, "
            "or copy the file."
        )
    if network is not None and network not in NETWORKS:
        raise ConfigError(f"network is {network!r}; give {', '.join(NETWORKS)}.")
    content = read_model_file(path, name)
    read = read_safetensors if suffixes[0] == SAFETENSORS else _read_torchscript
    metadata, state = read(content, name)
    if metadata is not None and metadata.architecture is not None:
        if network not in (None, metadata.architecture.get("name")) or voxel_size_angstrom is not None:
            raise ConfigError(
                f"{name} names its network and voxel size in its metadata; leave out --network and "
                "--voxel-size."
            )
        architecture: Mapping[str, Any] = metadata.architecture
    else:
        architecture = _architecture(network, state, name)
        if metadata is None:
            metadata = _metadata_for(architecture, voxel_size_angstrom)
    metadata = replace(metadata, architecture=None)
    module = build_network(architecture, state, name)
    kind = metadata.model_kind
    fitted(prepare(module), metadata, kind, name, ModelReading(None, metadata.output, None))
    save_model(module, target, metadata)
    return metadata


def _read_torchscript(content: bytes, name: str) -> tuple[ModelMetadata | None, Mapping[str, Tensor]]:
    try:
        archive = Archive(content, METADATA_NAME)
        return metadata_of(archive), archive.state()
    except Refusal as refusal:
        raise refused(name, refusal) from refusal


def _architecture(network: str | None, state: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Return the architecture that weights have, if they are those of the named network."""
    if network is None:
        raise ModelError(
            f"{name} does not name its network, and only weights of {', '.join(NETWORKS)} can be converted; "
            "give --network if it has one of these, else use the file as it is."
        )
    architecture = architecture_of(network, state)
    if architecture is None:
        raise ModelError(f"{name} does not have the weights of a {network}; use the file as it is.")
    return architecture


def _metadata_for(architecture: Mapping[str, Any], voxel_size_angstrom: float | None) -> ModelMetadata:
    """Return metadata for weights that came without any."""
    kind = KIND_OF_NETWORK[architecture["name"]]
    window = {"classifier": architecture.get("window"), "verifier": architecture.get("height")}.get(kind)
    nm = None if window is None or voxel_size_angstrom is None else window * voxel_size_angstrom / 10
    classes = VERIFIER_ANSWERS if kind == "verifier" else ()
    return ModelMetadata(
        *(kind, voxel_size_angstrom, window, nm),
        classes=classes,
        slices=architecture.get("slices", 1),
        code_version="unknown",
    )
