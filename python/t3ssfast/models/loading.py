"""Reading and checking model files."""

from __future__ import annotations

import hashlib
import io as stdio
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t3ssfast.errors import ConfigError, ModelError, TrustWarning
from t3ssfast.io import display_path
from t3ssfast.models.architectures import build_network, from_safetensors
from t3ssfast.models.bundled import read_bundled
from t3ssfast.models.checks import check_kind, fitted, metadata_of, prepare, refused, translate
from t3ssfast.models.fitting import ModelReading
from t3ssfast.models.foreign import Archive, Refusal, open_zip
from t3ssfast.models.loaded import BUNDLED_PREFIX, LoadedModel
from t3ssfast.models.metadata import METADATA_NAME, MODEL_KINDS, ModelMetadata
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.models.trial import try_in_child
from t3ssfast.runtime.memory import is_out_of_memory
from t3ssfast.tomogram import StrPath

__all__ = ["load_model", "read_model_file"]

# Model files are read whole. The bundled ones have a few MB.
MAX_FILE_BYTES = 2 << 30
HOW_TO_SAVE = "save the model with torch.jit.script(module).save(path) or t3ssfast.models.save_model"
# Members by which an archive of torch.export is recognised.
EXPORT_MEMBERS = ("models/model.json", "serialized_exported_program.json", "archive_format")


def load_model(
    model: StrPath | nn.Module | LoadedModel | None,
    *,
    model_kind: str,
    device: str | torch.device = "cpu",
    trust_model: bool = False,
    window_px: int | None = None,
    output: str = "auto",
    target_class: int | str | None = None,
) -> LoadedModel:
    """Load a model, check it, and move it to a device, in evaluation mode and float32.

    A file of t3ssfast holds weights and the name of one of its networks. Any other TorchScript file is
    translated into PyTorch's own operators, see `t3ssfast.models.foreign`; its code never runs. Bundled
    models are verified by their SHA-256.

    Parameters
    ----------
    model
        Path of a safetensors file of t3ssfast or of a TorchScript file, a module, a loaded model, or None for
        the bundled one.
    model_kind
        "classifier", "segmenter" or "verifier".
    trust_model
        Let PyTorch load the file and run its code as it is (TrustWarning); it can then do anything that a
        program can. Needed for torch.export archives (.pt2) and for models that cannot be translated.
    window_px
        Side of a classifier's window, pixels, where the file does not say it.
    output
        "logits", "probabilities", or "auto": as the file says, or as its answers to inputs of several scales
        show.
    target_class
        Index or name of a classifier's class of T3SS; None: the one named "t3ss", else the last.

    Raises
    ------
    ModelError
        The file is missing, damaged, of another format or kind, or cannot be translated; a bundled file
        does not match its checksum; or the model fails on a probe: wrong shape, NaN, too slow, training mode.

    Warns
    -----
    UserWarning
        The model has no t3ssfast metadata. Assumed are the voxel size of the tomogram, the default
        normalisation and dark protein. Found out are: RGB input, for which the grey channel is repeated; two
        output channels of a segmenter (background, membrane); and the multiple that sides of slices must be.
    """
    if model_kind not in MODEL_KINDS:
        raise ConfigError(f"model_kind is {model_kind!r}; give {' or '.join(MODEL_KINDS)}.")
    if isinstance(model, LoadedModel):
        check_kind(model.metadata, model_kind, model.path)
        return model.to(device)
    reading = ModelReading(window_px, output, target_class)
    metadata: ModelMetadata | None = None
    if isinstance(model, nn.Module):
        module, name = copy_module(model), "<module>"
        sha256 = _sha256_of_weights(module)
    elif model is None:
        name = f"{BUNDLED_PREFIX}{model_kind}"
        content, sha256 = read_bundled(model_kind)
        module, metadata = from_safetensors(content, name)
    else:
        path = Path(model)
        name = display_path(path)
        content = read_model_file(path, name, trust_model=trust_model)
        sha256 = hashlib.sha256(content).hexdigest()
        if path.suffix.lower() == ".safetensors":
            module, metadata = from_safetensors(content, name)
        elif trust_model:
            warnings.warn(
                f"{name} is loaded unchecked because trust_model is set; it can run any code.",
                TrustWarning,
                stacklevel=2,
            )
            module, metadata = _open_trusted(content, name, exported=path.suffix.lower() == ".pt2")
        else:
            module, metadata = _open_archive(content, name, model_kind, reading)
    found = fitted(prepare(module), metadata, model_kind, name, reading)
    if found.assumed:
        window = f", a window of {found.metadata.window_px} px" if model_kind == "classifier" else ""
        warnings.warn(
            f"{name} holds no t3ssfast metadata: assuming the tomogram's own voxel size{window}, the default "
            f"normalisation, dark protein and {found.metadata.output} as output.",
            UserWarning,
            stacklevel=2,
        )
    loaded = LoadedModel(found.module, found.metadata, sha256, name, side_multiple=found.side_multiple)
    return loaded.to(device)


def _open_archive(
    content: bytes, name: str, model_kind: str, reading: ModelReading
) -> tuple[nn.Module, ModelMetadata | None]:
    """Open a TorchScript archive: weights for one of the package's networks, or a model to translate."""
    try:
        archive = Archive(content, METADATA_NAME)
        metadata = metadata_of(archive)
        if metadata is not None and metadata.architecture is not None:
            # The code beside the weights is for other programs, and not read.
            network = build_network(metadata.architecture, archive.state(), name)
            return network, replace(metadata, architecture=None)
        try_in_child(content, name, model_kind, reading)
        return translate(archive, name)
    except Refusal as refusal:
        raise refused(name, refusal) from refusal


def read_model_file(path: Path, name: str, *, trust_model: bool = False) -> bytes:
    """Read a model file; an unsupported format is refused with a message that names it."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{name} is not a file; give the path of a model file.")
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{name} has {size / 2**30:.1f} GiB; give a model of less than 2 GiB.")
        content = path.read_bytes()
        if path.suffix.lower() == ".safetensors":
            return content
        if path.suffix.lower() == ".pt2":
            if trust_model:
                return content
            raise ModelError(
                f"{name} is a torch.export archive, which can run any code when it is loaded; {HOW_TO_SAVE}, "
                "or load it with trust_model=True (--trust-model) if you trust its author."
            )
        with open_zip(content) as archive:
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


def _open_trusted(content: bytes, name: str, *, exported: bool) -> tuple[nn.Module, ModelMetadata | None]:
    """Let PyTorch load a TorchScript or torch.export archive, and the metadata in it if there are any."""
    extra: dict[str, Any] = {METADATA_NAME: ""}
    try:
        if exported:
            with warnings.catch_warnings():
                # PyTorch 2.10 warns of a buffer of its own.
                warnings.filterwarnings("ignore", message="The given buffer is not writable")
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
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"{name} cannot be loaded as {file_format} ({reason}); save the model again."
        ) from error
    text = extra[METADATA_NAME]
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return module, ModelMetadata.from_json(text) if text else None


def _sha256_of_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
