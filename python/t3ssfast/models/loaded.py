"""A model that has been loaded and checked: what the stages ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from t3ssfast.models.engines.engine import SegmenterEngine
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["BUNDLED", "LoadedModel"]

# What the paths of bundled models begin with.
BUNDLED = "bundled:"


@dataclass(frozen=True)
class LoadedModel:
    """A checked model, ready to be asked.

    Attributes
    ----------
    module
        In evaluation mode, float32, on one device.
    metadata
        What it is for.
    sha256
        Of the file, or of the weights where there is no file.
    path
        Where it came from; "<module>" where it was handed over.
    """

    module: nn.Module
    metadata: ModelMetadata
    sha256: str
    path: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def is_bundled(self) -> bool:
        """Whether it is the one that comes with the package."""
        return self.path.startswith(BUNDLED)

    def to(self, device: str | torch.device) -> LoadedModel:
        """The same model on a device; itself where it already is there."""
        wanted, here = torch.device(device), self.device
        if here.type == wanted.type and wanted.index in (None, here.index):
            return self
        # TorchScript modules move in place: a copy keeps the caller's model where it was.
        moved = copy_module(self.module).to(device)
        return LoadedModel(moved, self.metadata, self.sha256, self.path)

    @cached_property
    def frozen(self) -> nn.Module:
        """TorchScript with weights as constants, batch normalisation folded in, and channels last.

        Measured on a U-Net of base 16 and a slice of 512 x 512: 1.8 times as fast as TorchScript as saved.
        """
        with quiet_torchscript():
            module = copy_module(self.module).to(self.device)
            # Parameters with four axes only; the others have no channels to move.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            try:
                if not isinstance(module, torch.jit.ScriptModule):
                    module = torch.jit.script(module)
                frozen: nn.Module = torch.jit.freeze(module)
                return frozen
            except (RuntimeError, torch.jit.frontend.FrontendError) as error:
                if is_out_of_memory(error):
                    raise
                # Frozen before, from torch.export, or holding something that cannot be folded: as it is, it
                # answers the same.
                return module

    @cached_property
    def fused(self) -> nn.Module:
        """`frozen` with each convolution and what follows it as one operation of oneDNN, on a CPU.

        Measured on a verifier: 2.3 times as fast as `frozen`.
        """
        frozen = self.frozen
        if self.device.type != "cpu" or not isinstance(frozen, torch.jit.ScriptModule):
            return frozen
        with quiet_torchscript():
            fused: nn.Module = torch.jit.optimize_for_inference(frozen)
            return fused

    @cached_property
    def _engines(self) -> dict[str, SegmenterEngine]:
        return {}

    def engine(self, name: str = "auto") -> SegmenterEngine:
        """What computes a segmenter's answers, made once for each name (see `SegmenterEngine`)."""
        if name not in self._engines:
            self._engines[name] = SegmenterEngine(self.frozen, self.probability, self.device, name)
        return self._engines[name]

    def release_engines(self) -> None:
        """Give back what engines hold (compiled networks, activations); made again when needed."""
        self._engines.clear()

    def probability(self, answers: Tensor) -> Tensor:
        """A model's answers as the probability of what it looks for.

        Parameters
        ----------
        answers
            Of a classifier (M, C), of a segmenter any shape.

        Returns
        -------
        (M,) for a classifier (the class "t3ss", else the last class), the input's shape for a segmenter.
        """
        if self.metadata.model_kind == "segmenter":
            return answers if self.metadata.output == "probabilities" else torch.sigmoid(answers)
        if answers.shape[1] == 1:
            single = answers[:, 0]
            return single if self.metadata.output == "probabilities" else torch.sigmoid(single)
        if self.metadata.output == "logits":
            answers = torch.softmax(answers, dim=1)
        return answers[:, self.metadata.target_index]
