"""The layers of a plan: a chain over feature maps at stride 1."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels.plan.winograd import WINOGRAD_OFF, winograd_min_windows

__all__ = ["Layer", "LayerKind", "NoDensePlanError", "Plan"]


class NoDensePlanError(Exception):
    """The model has no dense plan. The message is the reason, worded to follow "because"."""


class LayerKind(IntEnum):
    """Kinds of layers, numbered as in `csrc/core/layers.h`."""

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
    """One layer of a plan; kernel and dilation are (y, x).

    `weight` is (y, x, in, out) float64 of a convolution or linear layer, the (channels,) scale of an affine
    layer, or the (1,) slope of a leaky ReLU; `bias` is (out,) or the (channels,) shift.
    """

    kind: LayerKind
    channels: tuple[int, int]  # in, out
    kernel: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)  # distance between the kernel's taps on the stride-1 map
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    outputs_in_window: int = 1  # number of output values for a single window, over all channels

    @property
    def products(self) -> int:
        """Number of multiply-adds per output value."""
        weighted = self.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR)
        return self.kernel[0] * self.kernel[1] * self.channels[0] if weighted else 0


@dataclass(frozen=True)
class Plan:
    """A model as a chain of layers for windows of one size.

    The first linear layer begins the head, which is computed only at the requested windows.
    """

    size: int
    layers: tuple[Layer, ...]
    winograd: bool = True  # whether the CPU kernel may use this minimal filtering, which rounds differently

    @property
    def map_layers(self) -> int:
        """Number of layers over feature maps; the others are the head."""
        return next(i for i, layer in enumerate(self.layers) if layer.kind == LayerKind.LINEAR)

    @property
    def classes(self) -> int:
        """Number of scores per window."""
        return self.layers[-1].channels[1]

    @property
    def winograd_min_windows(self) -> int:
        """Minimum number of requested windows per 3 x 3 block for the Winograd path of the CPU kernel."""
        return winograd_min_windows(self.layers[self.map_layers].kernel) if self.winograd else WINOGRAD_OFF

    def program(self) -> _native.LayerProgram:
        """Return the plan in the form that the native kernels read."""
        return self._program

    @cached_property
    def _program(self) -> _native.LayerProgram:
        rows = []
        parameters = torch.zeros(0)
        for layer in self.layers:
            values = [p.reshape(-1).to(torch.float32) for p in (layer.weight, layer.bias) if p is not None]
            offset, count = len(parameters), sum(map(len, values))
            rows.append((int(layer.kind), *layer.channels, *layer.kernel, *layer.dilation, offset, count))
            parameters = torch.cat([parameters, *values])
        return _native.LayerProgram(
            tuple(rows), self.map_layers, self.classes, parameters, self.winograd_min_windows
        )

    def describe(self) -> str:
        """Return the chain in words, such as "convolution 5x5 to 6, relu, max pool 2x2, ..."."""
        words = []
        for i, layer in enumerate(self.layers):
            name = layer.kind.name.lower().replace("_", " ")
            if layer.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR):
                kernel = f" {layer.kernel[0]}x{layer.kernel[1]}" if i <= self.map_layers else ""
                name = f"{name}{kernel} to {layer.channels[1]}"
            elif layer.kernel != (1, 1):
                name = f"{name} {layer.kernel[0]}x{layer.kernel[1]}"
            words.append(name)
        return ", ".join(words)
