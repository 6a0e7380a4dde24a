"""Writing model files."""

from __future__ import annotations

import hashlib
import io as stdio
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from t3ssfast.errors import ModelError
from t3ssfast.io import atomic_path, display_path
from t3ssfast.models.architectures import NETWORKS, architecture_of, to_safetensors
from t3ssfast.models.foreign import TranslatedModel
from t3ssfast.models.metadata import METADATA_NAME, ModelMetadata
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.tomogram import StrPath

__all__ = [
    "SAFETENSORS",
    "TORCHSCRIPT",
    "check_format",
    "other_format",
    "save_model",
    "save_trained",
    "torchscript_problem",
]

# Suffixes of model files.
SAFETENSORS, TORCHSCRIPT = ".safetensors", ".pt"


def save_model(module: nn.Module, path: StrPath, metadata: ModelMetadata) -> str:
    """Write a module and its metadata to a model file, atomically.

    Parameters
    ----------
    module
        LeNet, UNet or AxialNet of this package, or any scriptable or TorchScript module. A copy is saved, in
        evaluation mode, on the CPU, in float32.
    path
        File to write. If it ends in ".safetensors", it holds weights and the name of the package's network;
        else TorchScript, which other programs can run, too.
    metadata
        What the model was trained for.

    Returns
    -------
    SHA-256 of the file, hexadecimal. Equal weights give equal files.

    Raises
    ------
    ModelError, OutputError
        The module cannot be written in this format, or the file cannot be written.
    """
    if Path(path).suffix.lower() == SAFETENSORS:
        content = to_safetensors(copy_module(module).to("cpu", torch.float32).eval(), metadata)
    elif isinstance(module, TranslatedModel):
        # Its code is that of its file, and its weights never change.
        content = _with_members(module.content, replace(metadata, architecture=None).to_json())
    else:
        ours = type(module) in NETWORKS.values()
        architecture = architecture_of(type(module).__name__, module.state_dict()) if ours else None
        content = _torchscript(module, replace(metadata, architecture=architecture))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def save_trained(module: nn.Module, path: StrPath, metadata: ModelMetadata) -> str:
    """Write a model as `save_model` does, and beside it in the other format.

    The other file has the suffix ".safetensors" or ".pt". It is left out where there cannot be one: of a
    network that is not the package's, or without TorchScript.
    """
    checksum = save_model(module, path, metadata)
    other = other_format(path)
    if other.suffix == SAFETENSORS:
        possible = type(module) in NETWORKS.values()
    else:
        possible = torchscript_problem() is None
    if possible:
        save_model(module, other, metadata)
    return checksum


def other_format(path: StrPath) -> Path:
    """Return the path of the same model in the other format."""
    return Path(path).with_suffix(TORCHSCRIPT if Path(path).suffix.lower() == SAFETENSORS else SAFETENSORS)


def check_format(path: StrPath) -> None:
    """Check that a model can be written in the format that its name says; `ModelError` if it cannot."""
    problem = torchscript_problem()
    if Path(path).suffix.lower() != SAFETENSORS and problem is not None:
        raise ModelError(
            f"{display_path(path)} would be TorchScript, which PyTorch {torch.__version__} cannot write here "
            f"({problem}); give a name that ends in {SAFETENSORS}."
        )


@cache
def torchscript_problem() -> str | None:
    """Return why this PyTorch cannot write TorchScript; None if it can."""
    with quiet_torchscript():
        try:
            torch.jit.save(torch.jit.script(nn.Identity().eval()), stdio.BytesIO())
        # PyTorch does not support TorchScript from Python 3.14 on, and may raise anything.
        except Exception as error:
            return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
    return None


def _torchscript(module: nn.Module, metadata: ModelMetadata) -> bytes:
    clean = copy_module(module).to("cpu", torch.float32).eval()
    with quiet_torchscript():
        try:
            scripted = clean if isinstance(clean, torch.jit.ScriptModule) else torch.jit.script(clean)
        except Exception as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"{type(module).__name__} cannot be compiled by TorchScript ({reason}); use layers that "
                "TorchScript supports."
            ) from error
        archive = stdio.BytesIO()
        torch.jit.save(scripted, archive)
    return _with_members(archive.getvalue(), metadata.to_json())


def _with_members(content: bytes, document: str) -> bytes:
    """Return a TorchScript archive with this metadata and without debug members.

    Debug members hold the source paths of this machine and are not needed to load the file.
    """
    clean = stdio.BytesIO()
    with zipfile.ZipFile(stdio.BytesIO(content)) as source, zipfile.ZipFile(clean, "w") as target:
        top = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            if not name.endswith(".debug_pkl") and name != f"{top}/extra/{METADATA_NAME}":
                target.writestr(zipfile.ZipInfo(name), source.read(name))
        target.writestr(zipfile.ZipInfo(f"{top}/extra/{METADATA_NAME}"), document)
    return clean.getvalue()
