"""Model files: TorchScript with metadata inside, written, read, and checked on the way in."""

from __future__ import annotations

import hashlib
import io as stdio
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t3ssfast.errors import ConfigError, ModelError, TrustWarning
from t3ssfast.io import atomic_path, display_path
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.loaded import BUNDLED, LoadedModel
from t3ssfast.models.metadata import KINDS, METADATA_NAME, TARGET_CLASS, ModelMetadata
from t3ssfast.models.model_gate import vet
from t3ssfast.models.probe import looks_like_probabilities, probe
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["load_model", "save_model"]

# Model files are read whole; honest ones are a hundredth of this.
MOST_BYTES = 2 << 30


def save_model(module: nn.Module, path: str | os.PathLike[str], metadata: ModelMetadata) -> str:
    """Write a module as a TorchScript file with metadata; atomic.

    Parameters
    ----------
    module
        Scriptable, or TorchScript already. It is saved in evaluation mode, on the CPU, in float32; the module
        handed over is left as it was.
    path
        File to write, by custom ending in ".pt".
    metadata
        What it is for.

    Returns
    -------
    SHA-256 of the file, hexadecimal.

    Raises
    ------
    ModelError
        The module cannot be expressed in TorchScript.
    OutputError
        The file cannot be written.
    """
    clean = copy_module(module).to("cpu", torch.float32).eval()
    with quiet_torchscript():
        try:
            scripted = clean if isinstance(clean, torch.jit.ScriptModule) else torch.jit.script(clean)
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{type(module).__name__} cannot be turned into TorchScript ({first}); "
                "write it with scriptable layers."
            ) from error
        archive = stdio.BytesIO()
        torch.jit.save(scripted, archive, _extra_files={METADATA_NAME: metadata.to_json()})
    content = _reproducible(archive)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _reproducible(archive: stdio.BytesIO) -> bytes:
    """The archive without what depends on where it was made: the same weights are the same file anywhere.

    TorchScript keeps the source paths of the machine that saved a model for its error messages, in members
    that loading does without.
    """
    content = stdio.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            if not member.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(member.filename), source.read(member))
    return content.getvalue()


def load_model(
    model: str | os.PathLike[str] | nn.Module | LoadedModel | None,
    *,
    model_kind: str,
    device: str | torch.device = "cpu",
    trust_model: bool = False,
) -> LoadedModel:
    """Load a model, check that it is what it should be, and move it to a device.

    A file is a program: before PyTorch sees it, it is taken apart, held against what a network for inference
    needs, and put together again from what was understood (see `t3ssfast.models.model_gate`). The bundled
    models are known by their SHA-256 instead.

    Parameters
    ----------
    model
        A TorchScript file, a module, a model loaded before, or None for the bundled one.
    model_kind
        "classifier", "segmenter" or "verifier".
    device
        Where it shall run.
    trust_model
        Load the file as it is, whatever it may do; a torch.export archive (.pt2) is only loaded so.

    Returns
    -------
    The model, in evaluation mode and float32.

    Raises
    ------
    ModelError
        The file is missing, damaged, no TorchScript, holds what no network for inference needs, is of another
        model_kind, or its answers have the wrong shape, are not finite, come too late, or show that it is in
        training mode; a bundled file is not the one that was released.

    Warns
    -----
    TrustWarning
        A file was loaded unchecked.
    UserWarning
        The model has no t3ssfast metadata: it is then taken to expect the tomogram's own voxel size, a window
        of 50 pixels, the default normalisation and dark protein; its answers are taken as probabilities where
        they look like them on a probe, else as logits; the last class is the T3SS.
    """
    if model_kind not in KINDS:
        raise ConfigError(f"The kind of a model is {model_kind!r}; give {' or '.join(KINDS)}.")
    if isinstance(model, LoadedModel):
        loaded = model
        _check_kind(loaded.metadata, model_kind, loaded.path)
        return loaded.to(device)
    if isinstance(model, nn.Module):
        module = copy_module(model)
        name, sha256, metadata = "<module>", _sha256_of_weights(module), None
    else:
        content, name = _bundled(model_kind) if model is None else _content(Path(model), trust_model)
        sha256 = hashlib.sha256(content).hexdigest()
        if model is not None and trust_model:
            warnings.warn(
                f"{name} is loaded unchecked, as it was asked for: it can do whatever a program can.",
                TrustWarning,
                stacklevel=2,
            )
        elif model is not None:
            content = vet(content, name, METADATA_NAME)
        exported = model is not None and _is_exported(Path(model))
        module, metadata = _open_exported(content, name) if exported else _open(content, name)
    # A module of torch.export has no modes: it is what it was when it was exported.
    module = module.to("cpu", torch.float32)
    if not isinstance(module, torch.fx.GraphModule):
        module = module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if metadata is None and model_kind == "verifier":
        raise ModelError(
            f"{name} holds no t3ssfast metadata, without which nobody knows how far it looks; give a "
            "verifier that t3ssfast train verifier wrote."
        )
    if metadata is None:
        output = probe(module, _assumed(model_kind, "logits"), name)
        metadata = _assumed(model_kind, "probabilities" if looks_like_probabilities(output) else "logits")
        if model_kind == "classifier":
            metadata = replace(metadata, classes=_assumed_classes(output.shape[1]))
        assumed_window = f", a window of {DEFAULT_WINDOW_PX} px" if model_kind == "classifier" else ""
        warnings.warn(
            f"{name} holds no t3ssfast metadata: assuming the tomogram's own voxel size{assumed_window}, the "
            f"default normalisation, dark protein and {metadata.output} as output.",
            UserWarning,
            stacklevel=2,
        )
    else:
        _check_kind(metadata, model_kind, name)
        probe(module, metadata, name)
    return LoadedModel(module, metadata, sha256, name).to(device)


def _assumed(model_kind: str, output: str) -> ModelMetadata:
    """Metadata of a model that came without."""
    window = DEFAULT_WINDOW_PX if model_kind == "classifier" else None
    return ModelMetadata(model_kind, window_px=window, output=output, code_version="unknown")


def _assumed_classes(answers: int) -> tuple[str, ...]:
    """Names of a classifier's answers, the last one being the T3SS; a single answer decides between two."""
    others = ("background",) if answers <= 2 else tuple(f"class_{k}" for k in range(answers - 1))
    return (*others, TARGET_CLASS)


def _check_kind(metadata: ModelMetadata, model_kind: str, name: str) -> None:
    if metadata.model_kind != model_kind:
        raise ModelError(
            f"{name} is a {metadata.model_kind}, not a {model_kind}; give it in the other place."
        )


def _bundled(model_kind: str) -> tuple[bytes, str]:
    """Content of a bundled model, checked against the checksum that was released with it."""
    folder = resources.files("t3ssfast") / "weights"
    name = f"{model_kind}.pt"
    try:
        expected: Mapping[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The bundled {model_kind} is not installed ({error}); install t3ssfast again or "
            "give a model file."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected.get(name):
        raise ModelError(
            f"The bundled {model_kind} is damaged: its SHA-256 is {actual}, not "
            f"{expected.get(name, 'listed')}; "
            "install t3ssfast again."
        )
    return content, f"{BUNDLED}{name}"


def _is_exported(path: Path) -> bool:
    return path.suffix.lower() == ".pt2"


def _content(path: Path, trust_model: bool) -> tuple[bytes, str]:
    """Content of a model file, or why it is none."""
    name = display_path(path)
    how = "save it with torch.jit.script(module).save(path) or t3ssfast.models.save_model"
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{name} is no file; give the path of a TorchScript file.")
        if size > MOST_BYTES:
            raise ModelError(f"{name} is {size / 2**30:.1f} GiB large; give a model of less than 2 GiB.")
        content = path.read_bytes()
        if _is_exported(path):
            if trust_model:
                return content, name
            raise ModelError(
                f"{name} is a torch.export archive, which can run any code when it is loaded; {how}, or load "
                "it with trust_model=True (--trust-model) if you trust whoever made it."
            )
        with zipfile.ZipFile(stdio.BytesIO(content)) as archive:
            names = archive.namelist()
    except FileNotFoundError as error:
        raise ModelError(f"There is no model file {name}; give the path of a TorchScript file.") from error
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{name} is not a TorchScript file ({' '.join(str(error).split())}); {how}."
        ) from error
    if any(n.endswith("/constants.pkl") for n in names):
        return content, name
    if any(
        n.endswith(("models/model.json", "serialized_exported_program.json", "archive_format")) for n in names
    ):
        raise ModelError(f"{name} is a torch.export archive that is not called .pt2; {how}.")
    if any(n.endswith("/data.pkl") for n in names):
        raise ModelError(
            f"{name} is a pickle (state dict or module) written by torch.save, not TorchScript; {how}."
        )
    raise ModelError(f"{name} is a zip archive but not a TorchScript file; {how}.")


def _open(content: bytes, name: str) -> tuple[nn.Module, ModelMetadata | None]:
    """Module and metadata out of a TorchScript archive."""
    extra: dict[str, Any] = {METADATA_NAME: ""}
    with quiet_torchscript():
        try:
            module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                stdio.BytesIO(content), map_location="cpu", _extra_files=extra
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise _unloadable(name, "TorchScript", error) from error
    return module, _metadata(extra)


def _open_exported(content: bytes, name: str) -> tuple[nn.Module, ModelMetadata | None]:
    """Module and metadata out of a torch.export archive that is trusted."""
    extra: dict[str, Any] = {METADATA_NAME: ""}
    try:
        program = torch.export.load(stdio.BytesIO(content), extra_files=extra)
        module: nn.Module = program.module()
    except Exception as error:
        raise _unloadable(name, "a torch.export archive", error) from error
    return module, _metadata(extra)


def _unloadable(name: str, what: str, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"{name} cannot be loaded as {what} ({first}); save the model again.")


def _metadata(extra: Mapping[str, Any]) -> ModelMetadata | None:
    """What an archive says about itself; None where it says nothing."""
    text = extra[METADATA_NAME]
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return ModelMetadata.from_json(text) if text else None


def _sha256_of_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
