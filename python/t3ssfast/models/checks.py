"""What a model is checked for when it is loaded, in this process and in the child that tries it first."""

from __future__ import annotations

import torch
from torch import nn

from t3ssfast.errors import ModelError
from t3ssfast.models.fitting import FittedModel, ModelReading, fit_model
from t3ssfast.models.foreign import Archive, Refusal, TranslatedModel
from t3ssfast.models.metadata import METADATA_NAME, ModelMetadata

__all__ = ["check_kind", "fitted", "metadata_of", "open_foreign", "prepare", "refused", "translate"]


def open_foreign(content: bytes, name: str, model_kind: str, reading: ModelReading) -> None:
    """Read a foreign model and run it on a probe, as `load_model` does; raises what it would raise."""
    module, metadata = translate(Archive(content, METADATA_NAME), name)
    fitted(prepare(module), metadata, model_kind, name, reading)


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


def fitted(
    module: nn.Module, metadata: ModelMetadata | None, model_kind: str, name: str, reading: ModelReading
) -> FittedModel:
    """Check a module's kind and run it on probes; see `fit_model`."""
    if metadata is not None:
        check_kind(metadata, model_kind, name)
    try:
        return fit_model(module, metadata, model_kind, name, reading)
    except Refusal as refusal:
        raise refused(name, refusal) from refusal


def check_kind(metadata: ModelMetadata, model_kind: str, name: str) -> None:
    if metadata.model_kind != model_kind:
        raise ModelError(
            f"{name} is a {metadata.model_kind}, not a {model_kind}; give it as the {metadata.model_kind}."
        )
