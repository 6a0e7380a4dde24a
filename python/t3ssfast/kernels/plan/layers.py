"""What a plan is made of: layers over feature maps at stride 1, in a chain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels.plan.winograd import NEVER, least_of_nine

__all__ = ["Layer", "LayerKind", "Plan"]


class LayerKind(IntEnum):
    """The kinds of `csrc/core/layers.h`, by the same numbers."""

    CONVOLUTION = 0
    LINEAR = 1
    MAX_POOL = 2
    AVERAGE_POOL = 3
    AFFINE = 4
    RELU = 5
    LEAKY_RELU = 6
    TANH = 7
    SIGMOID = 8
    GELU = 9
    GELU_TANH = 10
    SOFTMAX = 11
    LOG_SOFTMAX = 12


@dataclass(frozen=True)
class Layer:
    """One layer of a plan.

    Parameters
    ----------
    kind
        What it does.
    channels
        (in, out).
    kernel
        (y, x) taps.
    step
        (y, x) distance between taps on the stride-1 map.
    weight
        (y, x, in, out) float64, of convolutions and linear layers; (channels,) scale of an affine layer;
        (1,) slope of a leaky ReLU.
    bias
        (out,) float64, of convolutions and linear layers; (channels,) shift of an affine layer.
    outputs_in_window
        How many values a single window has behind this layer, all channels together.
    """

    kind: LayerKind
    channels: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    outputs_in_window: int = 1

    def parameters(self) -> list[torch.Tensor]:
        """The numbers the native kernel reads, in its order."""
        return [p for p in (self.weight, self.bias) if p is not None]

    def products(self) -> int:
        """Multiply-adds for one output value."""
        weighted = self.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR)
        return self.kernel[0] * self.kernel[1] * self.channels[0] if weighted else 0


@dataclass(frozen=True)
class Plan:
    """A model read for windows of one size: what `_native.score_windows` executes.

    Parameters
    ----------
    size
        Edge of the window.
    layers
        The chain; the first linear layer begins the head, which is done only at the windows asked for.
    nines
        Whether nine windows that lie together may be done together, which rounds differently.
    """

    size: int
    layers: tuple[Layer, ...]
    nines: bool = True

    @property
    def map_layers(self) -> int:
        """How many layers work on feature maps; the rest is the head."""
        return next(i for i, layer in enumerate(self.layers) if layer.kind == LayerKind.LINEAR)

    @property
    def classes(self) -> int:
        """Number of answers a window gets."""
        return self.layers[-1].channels[1]

    @property
    def least_of_nine(self) -> int:
        """Asked for in nine windows from which a CPU does all nine together."""
        return least_of_nine(self.layers[self.map_layers].kernel) if self.nines else NEVER

    def program(self) -> _native.LayerProgram:
        """The plan as the native kernel reads it."""
        return self._program

    @cached_property
    def _program(self) -> _native.LayerProgram:
        rows = []
        parameters: list[torch.Tensor] = []
        offset = 0
        for layer in self.layers:
            own = torch.cat([p.reshape(-1) for p in layer.parameters()] or [torch.zeros(0)])
            rows.append((int(layer.kind), *layer.channels, *layer.kernel, *layer.step, offset, own.numel()))
            parameters.append(own.to(torch.float32))
            offset += own.numel()
        return _native.LayerProgram(
            tuple(rows), self.map_layers, self.classes, torch.cat(parameters), self.least_of_nine
        )

    def describe(self) -> str:
        """The chain in words, such as "conv 5x5 to 6, relu, max pool 2x2, ..."."""
        words = []
        for i, layer in enumerate(self.layers):
            name = layer.kind.name.lower().replace("_", " ")
            if layer.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR):
                taps = f" {layer.kernel[0]}x{layer.kernel[1]}" if i <= self.map_layers else ""
                name = f"{name}{taps} to {layer.channels[1]}"
            elif layer.kernel != (1, 1):
                name = f"{name} {layer.kernel[0]}x{layer.kernel[1]}"
            words.append(name)
        return ", ".join(words)
