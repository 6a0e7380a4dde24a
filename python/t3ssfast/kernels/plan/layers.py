"""The layers of a plan: a chain over feature maps at stride 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch

from t3ssfast.kernels import _native

__all__ = ["WINOGRAD_OFF", "Layer", "LayerKind", "NoDensePlanError", "Plan", "winograd_block_cost"]

# Above the nine windows of a 3 x 3 block, so that the CPU kernel computes none of them together.
WINOGRAD_OFF = 10
# Measured time per product of Winograd over that of direct sums: transforms, and windows not requested.
# `python bench/bench_score_windows.py --calibrate` prints it.
COST_PER_PRODUCT = 1.4


def winograd_block_cost(kernel: tuple[int, int]) -> float:
    """Return the cost of a 3 x 3 block of windows by Winograd's filtering, relative to one by direct sums.

    F(3 x 3, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), takes 25
    products instead of 81; see `csrc/core/winograd.h`.
    """
    products = 25 * math.ceil(kernel[0] / 3) * math.ceil(kernel[1] / 3)
    return COST_PER_PRODUCT * products / (kernel[0] * kernel[1])


def winograd_min_windows(kernel: tuple[int, int]) -> int:
    """Return the minimum number of requested windows per block for which it is cheaper, or `WINOGRAD_OFF`."""
    return min(WINOGRAD_OFF, math.ceil(winograd_block_cost(kernel)))


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
    """A model as a chain of layers for windows of one size."""

    size: int
    layers: tuple[Layer, ...]  # the first linear one begins the head, computed only at the requested windows
    winograd: bool = True  # whether the CPU kernel may use this minimal filtering, which rounds differently

    @property
    def map_layers(self) -> int:
        """Number of layers over feature maps; the others are the head."""
        return next(i for i, layer in enumerate(self.layers) if layer.kind == LayerKind.LINEAR)

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
        classes = self.layers[-1].channels[1]
        return _native.LayerProgram(
            tuple(rows), self.map_layers, classes, parameters, self.winograd_min_windows
        )

    def describe(self) -> str:
        """Return the chain in words, such as "convolution 5x5 to 6, relu, max pool 2x2, ..."."""
        words = []
        for i, layer in enumerate(self.layers):
            words.append(layer.kind.name.lower().replace("_", " "))
            if layer.kernel != (1, 1) or (layer.products and i <= self.map_layers):
                words[-1] += f" {layer.kernel[0]}x{layer.kernel[1]}"
            if layer.products:
                words[-1] += f" to {layer.channels[1]}"
        return ", ".join(words)
