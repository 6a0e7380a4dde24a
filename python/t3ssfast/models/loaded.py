"""A model that has been loaded and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from t3ssfast.errors import ModelError, T3Error
from t3ssfast.models.engines.engine import SegmenterEngine
from t3ssfast.models.frozen import freeze, fuse
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import copy_module
from t3ssfast.runtime.memory import is_out_of_memory

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
    # Of which the sides of a segmenter's slices must be multiples.
    side_multiple: int = 16
    # Frozen TorchScript has no tensors that would tell where its constants are.
    placed_on: torch.device = field(default_factory=lambda: torch.device("cpu"), compare=False)
    _engines: dict[str, SegmenterEngine] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        tensor = next(chain(self.module.parameters(), self.module.buffers()), None)
        return self.placed_on if tensor is None else tensor.device

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

    @contextmanager
    def named_errors(self, inputs: str) -> Iterator[None]:
        """Turn an error of the network on inputs ("slices of 64 x 64 px") into a sentence that names it."""
        try:
            yield
        except ModelError as error:
            if self.path in str(error):
                raise
            raise ModelError(f"{self.path}: {error}") from error
        # Networks of other people raise whatever they like, TorchScript an exception of its own.
        except Exception as error:
            if isinstance(error, T3Error) or is_out_of_memory(error):
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1].rstrip(".") if lines else type(error).__name__
            raise ModelError(
                f"{self.path}: the {self.metadata.model_kind} cannot be run on {inputs} ({reason}); give "
                "another."
            ) from error

    def engine(self, name: str = "auto") -> SegmenterEngine:
        """Return the inference engine of a segmenter by name, one of `SEGMENTER_ENGINES`; cached."""
        if name not in self._engines:
            networks = {"network": self.frozen, "trained": self.module}
            self._engines[name] = SegmenterEngine(
                probability=self.probability, device=self.device, requested=name, **networks
            )
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
