"""Writing model files, and reading and checking them."""

from __future__ import annotations

import hashlib
import io as stdio
import json
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
from t3ssfast.models.loaded import BUNDLED_PREFIX, LoadedModel
from t3ssfast.models.metadata import METADATA_NAME, MODEL_KINDS, TARGET_CLASS, ModelMetadata
from t3ssfast.models.model_gate import vet
from t3ssfast.models.probe import looks_like_probabilities, probe
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory
from t3ssfast.tomogram import StrPath

__all__ = ["load_model", "save_model"]

# Model files are read whole. The bundled ones have a few MB.
MAX_FILE_BYTES = 2 << 30
HOW_TO_SAVE = "save the model with torch.jit.script(module).save(path) or t3ssfast.models.save_model"
# Members by which an archive of torch.export is recognised.
EXPORT_MEMBERS = ("models/model.json", "serialized_exported_program.json", "archive_format")


def save_model(module: nn.Module, path: StrPath, metadata: ModelMetadata) -> str:
    """Write a module and its metadata to a TorchScript file, atomically.

    Parameters
    ----------
    module
        Scriptable or TorchScript module. A copy is saved, in evaluation mode, on the CPU, in float32.
    path
        File to write, usually named ".pt".
    metadata
        What the model was trained for.

    Returns
    -------
    SHA-256 of the file, hexadecimal. Equal weights give equal files.

    Raises
    ------
    ModelError, OutputError
        TorchScript cannot compile the module, or the file cannot be written.
    """
    clean = copy_module(module).to("cpu", torch.float32).eval()
    with quiet_torchscript():
        try:
            scripted = clean if isinstance(clean, torch.jit.ScriptModule) else torch.jit.script(clean)
        except Exception as error:
            raise ModelError(
                f"{type(module).__name__} cannot be compiled by TorchScript ({_first_line(error)}); use "
                "layers that TorchScript supports."
            ) from error
        archive = stdio.BytesIO()
        torch.jit.save(scripted, archive, _extra_files={METADATA_NAME: metadata.to_json()})
    # Debug members hold the source paths of this machine and are not needed to load the file.
    clean_archive = stdio.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(clean_archive, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), source.read(name))
    content = clean_archive.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_model(
    model: StrPath | nn.Module | LoadedModel | None,
    *,
    model_kind: str,
    device: str | torch.device = "cpu",
    trust_model: bool = False,
) -> LoadedModel:
    """Load a model, check it, and move it to a device, in evaluation mode and float32.

    TorchScript files contain code. PyTorch therefore never loads a file itself, only an archive that
    `t3ssfast.models.model_gate` rebuilt from the parts it accepted. Bundled models are verified by their
    SHA-256 instead.

    Parameters
    ----------
    model
        Path of a TorchScript file, a module, a loaded model, or None for the bundled one.
    model_kind
        "classifier", "segmenter" or "verifier".
    trust_model
        Load the file without these checks (TrustWarning); it can then run any code. Needed for torch.export
        archives (.pt2).

    Raises
    ------
    ModelError
        The file is missing, damaged, not TorchScript, refused by the gate, or of another kind; a bundled file
        does not match its checksum; or the model fails on a probe: wrong shape, NaN, too slow, training mode.

    Warns
    -----
    UserWarning
        The model has no t3ssfast metadata. Assumed are the voxel size of the tomogram, a window of 50 pixels,
        the default normalisation, dark protein, and T3SS as the last class; the outputs are taken as
        probabilities if they look like them on a probe, else as logits.
    """
    if model_kind not in MODEL_KINDS:
        raise ConfigError(f"model_kind is {model_kind!r}; give {' or '.join(MODEL_KINDS)}.")
    if isinstance(model, LoadedModel):
        _check_kind(model.metadata, model_kind, model.path)
        return model.to(device)
    metadata: ModelMetadata | None = None
    if isinstance(model, nn.Module):
        module, name = copy_module(model), "<module>"
        sha256 = _sha256_of_weights(module)
    elif model is None:
        content, sha256, name = _bundled(model_kind)
        module, metadata = _open(content, name)
    else:
        path = Path(model)
        name = display_path(path)
        exported = path.suffix.lower() == ".pt2"
        content = _read(path, name, exported, trust_model)
        sha256 = hashlib.sha256(content).hexdigest()
        if trust_model:
            warnings.warn(
                f"{name} is loaded unchecked because trust_model is set; it can run any code.",
                TrustWarning,
                stacklevel=2,
            )
        else:
            content = vet(content, name, METADATA_NAME)
        module, metadata = _open(content, name, exported=exported)
    module = module.to("cpu", torch.float32)
    # Modules of torch.export have no evaluation mode.
    if not isinstance(module, torch.fx.GraphModule):
        module = module.eval()
    # ScriptModules have no requires_grad_.
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if metadata is None:
        metadata = _assumed_metadata(module, model_kind, name)
        window = f", a window of {DEFAULT_WINDOW_PX} px" if model_kind == "classifier" else ""
        warnings.warn(
            f"{name} holds no t3ssfast metadata: assuming the tomogram's own voxel size{window}, the default "
            f"normalisation, dark protein and {metadata.output} as output.",
            UserWarning,
            stacklevel=2,
        )
    else:
        _check_kind(metadata, model_kind, name)
        probe(module, metadata, name)
    return LoadedModel(module, metadata, sha256, name).to(device)


def _assumed_metadata(module: nn.Module, model_kind: str, name: str) -> ModelMetadata:
    """Return assumed metadata for a model that has none, from its outputs on a probe."""
    if model_kind == "verifier":
        raise ModelError(
            f"{name} holds no t3ssfast metadata, which a verifier needs; train one (t3ssfast train verifier)."
        )
    window = DEFAULT_WINDOW_PX if model_kind == "classifier" else None
    metadata = ModelMetadata(model_kind, window_px=window, code_version="unknown")
    outputs = probe(module, metadata, name)
    if model_kind == "classifier":
        # The last class is the T3SS; a single output stands for two classes.
        count = outputs.shape[1]
        others = ("background",) if count <= 2 else tuple(f"class_{k}" for k in range(count - 1))
        metadata = replace(metadata, classes=(*others, TARGET_CLASS))
    return replace(metadata, output="probabilities" if looks_like_probabilities(outputs) else "logits")


def _check_kind(metadata: ModelMetadata, model_kind: str, name: str) -> None:
    if metadata.model_kind != model_kind:
        raise ModelError(
            f"{name} is a {metadata.model_kind}, not a {model_kind}; give it as the {metadata.model_kind}."
        )


def _bundled(model_kind: str) -> tuple[bytes, str, str]:
    """Read a bundled model and verify its checksum; returns its content, checksum and name."""
    folder = resources.files("t3ssfast") / "weights"
    name = f"{model_kind}.pt"
    try:
        expected: Mapping[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The bundled {model_kind} is not installed ({error}); reinstall t3ssfast or give a model file."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected.get(name):
        raise ModelError(
            f"The bundled {model_kind} is damaged: its SHA-256 is {actual}, not "
            f"{expected.get(name, 'listed')}; install t3ssfast again."
        )
    return content, actual, f"{BUNDLED_PREFIX}{name}"


def _read(path: Path, name: str, exported: bool, trust_model: bool) -> bytes:
    """Read a model file; anything other than TorchScript is refused with a message that names the format."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{name} is not a file; give the path of a TorchScript file.")
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{name} has {size / 2**30:.1f} GiB; give a model of less than 2 GiB.")
        content = path.read_bytes()
        if exported:
            if trust_model:
                return content
            raise ModelError(
                f"{name} is a torch.export archive, which can run any code when it is loaded; {HOW_TO_SAVE}, "
                "or load it with trust_model=True (--trust-model) if you trust its author."
            )
        with zipfile.ZipFile(stdio.BytesIO(content)) as archive:
            members = archive.namelist()
    except FileNotFoundError as error:
        raise ModelError(f"There is no model file {name}; give the path of a TorchScript file.") from error
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{name} is not a TorchScript file ({reason}); {HOW_TO_SAVE}.") from error
    if any(member.endswith("/constants.pkl") for member in members):
        return content
    found = "a zip archive but not a TorchScript file"
    if any(member.endswith(EXPORT_MEMBERS) for member in members):
        found = "a torch.export archive that is not named .pt2"
    elif any(member.endswith("/data.pkl") for member in members):
        found = "a pickle (state dict or module) written by torch.save, not TorchScript"
    raise ModelError(f"{name} is {found}; {HOW_TO_SAVE}.")


def _open(content: bytes, name: str, *, exported: bool = False) -> tuple[nn.Module, ModelMetadata | None]:
    """Load a TorchScript or torch.export archive, and the metadata in it if there are any."""
    extra: dict[str, Any] = {METADATA_NAME: ""}
    try:
        if exported:
            module: nn.Module = torch.export.load(stdio.BytesIO(content), extra_files=extra).module()
        else:
            with quiet_torchscript():
                module = torch.jit.load(  # type: ignore[no-untyped-call]
                    stdio.BytesIO(content), map_location="cpu", _extra_files=extra
                )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        file_format = "a torch.export archive" if exported else "TorchScript"
        raise ModelError(
            f"{name} cannot be loaded as {file_format} ({_first_line(error)}); save the model again."
        ) from error
    text = extra[METADATA_NAME]
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return module, ModelMetadata.from_json(text) if text else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _sha256_of_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
