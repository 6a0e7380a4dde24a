"""A model that has been loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from t3ssfast.models.engines.engine import SegmenterEngine
from t3ssfast.models.frozen import freeze, fuse
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import copy_module

__all__ = ["BUNDLED_PREFIX", "LoadedModel"]

# Start of the `path` of bundled models.
BUNDLED_PREFIX = "bundled:"


@dataclass(frozen=True)
class LoadedModel:
    """A model that has been loaded and checked, in evaluation mode and float32.

    `sha256` is the checksum of the file, `path` its path. For a module that was passed in, `sha256` is the
    checksum of its weights and `path` is "<module>".
    """

    module: nn.Module
    metadata: ModelMetadata
    sha256: str
    path: str
    # Frozen TorchScript has no tensors that would tell where its constants are.
    placed_on: torch.device = field(default_factory=lambda: torch.device("cpu"), compare=False)
    _engines: dict[str, SegmenterEngine] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return self.placed_on

    @property
    def is_bundled(self) -> bool:
        """Whether this is a model of the package itself."""
        return self.path.startswith(BUNDLED_PREFIX)

    def to(self, device: str | torch.device) -> LoadedModel:
        """Return the model on a device: itself if it is there already, else a copy."""
        target, current = torch.device(device), self.device
        if current.type == target.type and target.index in (None, current.index):
            return self
        # TorchScript modules move in place; the copy leaves the caller's model where it was.
        return replace(self, module=copy_module(self.module, target), placed_on=target)

    @cached_property
    def frozen(self) -> nn.Module:
        """The network with constant weights, folded batch normalisation and channels last."""
        return freeze(self.module, self.device)

    @cached_property
    def fused(self) -> nn.Module:
        """`frozen`, with layers fused on a CPU."""
        return fuse(self.frozen, self.device)

    def engine(self, name: str = "auto") -> SegmenterEngine:
        """Return the inference engine of a segmenter by name, one of `SEGMENTER_ENGINES`; cached."""
        if name not in self._engines:
            self._engines[name] = SegmenterEngine(self.frozen, self.probability, self.device, name)
        return self._engines[name]

    def release_engines(self) -> None:
        """Free the compiled networks and activations of the engines; `engine` creates them again."""
        self._engines.clear()

    def probability(self, outputs: Tensor) -> Tensor:
        """Convert outputs to probabilities: (M, C) of a classifier -> (M,), any shape of a segmenter."""
        is_probability = self.metadata.output == "probabilities"
        if self.metadata.model_kind == "segmenter":
            return outputs if is_probability else torch.sigmoid(outputs)
        if outputs.shape[1] == 1:
            return outputs[:, 0] if is_probability else torch.sigmoid(outputs[:, 0])
        if not is_probability:
            outputs = torch.softmax(outputs, dim=1)
        return outputs[:, self.metadata.target_index]
