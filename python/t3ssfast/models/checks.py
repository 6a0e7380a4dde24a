"""What a model is checked for when it is loaded, in this process and in the child that tries it first."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from t3ssfast.errors import ModelError
from t3ssfast.models.foreign import Archive, Refusal, TranslatedModel
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.metadata import METADATA_NAME, TARGET_CLASS, ModelMetadata
from t3ssfast.models.probe import looks_like_probabilities, probe

__all__ = ["check_kind", "checked_metadata", "metadata_of", "open_foreign", "prepare", "refused", "translate"]


def open_foreign(content: bytes, name: str, model_kind: str) -> None:
    """Read a foreign model and run it on a probe, as `load_model` does; raises what it would raise."""
    module, metadata = translate(Archive(content, METADATA_NAME), name)
    checked_metadata(prepare(module), metadata, model_kind, name)


def translate(archive: Archive, name: str) -> tuple[nn.Module, ModelMetadata | None]:
    try:
        return TranslatedModel(archive), metadata_of(archive)
    except Refusal as refusal:
        raise refused(name, refusal) from refusal


def metadata_of(archive: Archive) -> ModelMetadata | None:
    if not archive.extra:
        return None
    return ModelMetadata.from_json(archive.extra.decode("utf-8", errors="replace"))


def refused(name: str, refusal: Refusal) -> ModelError:
    return ModelError(
        f"{name} is refused: {refusal}; save it in evaluation mode as a network of ordinary layers, or load "
        "it with trust_model=True (--trust-model) if you trust its author as you would for a program."
    )


def prepare(module: nn.Module) -> nn.Module:
    module = module.to("cpu", torch.float32)
    # Modules of torch.export have no evaluation mode.
    if not isinstance(module, torch.fx.GraphModule):
        module = module.eval()
    # ScriptModules have no requires_grad_.
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def checked_metadata(
    module: nn.Module, metadata: ModelMetadata | None, model_kind: str, name: str
) -> tuple[ModelMetadata, bool]:
    """Probe a module; return its metadata, and whether they had to be assumed."""
    try:
        if metadata is None:
            return _assumed_metadata(module, model_kind, name), True
        check_kind(metadata, model_kind, name)
        probe(module, metadata, name)
        return metadata, False
    except Refusal as refusal:
        raise refused(name, refusal) from refusal


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


def check_kind(metadata: ModelMetadata, model_kind: str, name: str) -> None:
    if metadata.model_kind != model_kind:
        raise ModelError(
            f"{name} is a {metadata.model_kind}, not a {model_kind}; give it as the {metadata.model_kind}."
        )
