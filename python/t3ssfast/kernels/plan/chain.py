"""The chain of layers while it is being read: what it holds so far, and how a layer is appended to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from t3ssfast.kernels.plan.layers import Layer, LayerKind

__all__ = ["Chain", "Unreadable"]


class Unreadable(Exception):
    """The chain cannot be read; the message says why, to stand behind "because"."""


class Chain:
    """The layers of a plan so far, and the one tensor that is followed through them."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.seen = {id(tensor)}
        self.layers: list[Layer] = []
        self.channels = 1
        self.local = (int(tensor.shape[2]), int(tensor.shape[3]))  # size of a window's own map
        self.step = (1, 1)
        self.flat = False  # (M, channels * y * x): the axes of the map are folded into one
        self.head = False

    def shape(self, count: int) -> list[tuple[int, ...]]:
        """Shapes that the current tensor may have."""
        folded = (count, self.channels * self.local[0] * self.local[1])
        unfolded = (count, self.channels, *self.local)
        return [folded] if self.flat else [unfolded]

    def append(self, kind: LayerKind, out_channels: int | None = None, **fields: Any) -> None:
        channels = (self.channels, self.channels if out_channels is None else out_channels)
        values = channels[1] * self.local[0] * self.local[1]
        self.layers.append(Layer(kind, channels, outputs_in_window=values, **fields))
        self.channels = channels[1]

    def spatial(
        self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], name: str
    ) -> tuple[int, int]:
        """Moves on by a layer with a kernel; returns the step of its taps."""
        if self.flat:
            raise Unreadable(f"{name} comes behind the flattening")
        step = (self.step[0] * dilation[0], self.step[1] * dilation[1])
        y, x = ((self.local[i] - 1 - (kernel[i] - 1) * dilation[i]) // stride[i] + 1 for i in range(2))
        self.local = (y, x)
        self.step = (self.step[0] * stride[0], self.step[1] * stride[1])
        return step

    def weighted(
        self, weight: torch.Tensor, bias: torch.Tensor | None, step: tuple[int, int], linear: bool
    ) -> None:
        """Appends a convolution or linear layer of `weight` (out, in, y, x)."""
        weight = weight.detach().cpu().to(torch.float64)
        shift = torch.zeros(weight.shape[0], dtype=torch.float64)
        if bias is not None:
            shift = bias.detach().cpu().to(torch.float64)
        if self.layers and self.layers[-1].kind == LayerKind.AFFINE:
            # Without padding, an affine map before a weighted sum is part of the sum.
            before = self.layers.pop()
            assert before.weight is not None
            assert before.bias is not None
            shift = shift + torch.einsum("oiyx,i->o", weight, before.bias)
            weight = weight * before.weight[None, :, None, None]
        if not (torch.isfinite(weight).all() and torch.isfinite(shift).all()):
            raise Unreadable("a weight is NaN or infinite")
        self.append(
            LayerKind.LINEAR if linear else LayerKind.CONVOLUTION,
            int(weight.shape[0]),
            kernel=(int(weight.shape[2]), int(weight.shape[3])),
            step=step,
            weight=weight.permute(2, 3, 1, 0).contiguous(),
            bias=shift,
        )
        self.head = self.head or linear

    def begin_head(self) -> None:
        """Makes sure that what follows is done per window, by a layer that changes nothing."""
        if self.head:
            return
        if self.local != (1, 1):
            raise Unreadable("the answer is not made by a fully connected layer")
        identity = torch.eye(self.channels, dtype=torch.float64)[:, :, None, None]
        self.weighted(identity, None, (1, 1), linear=True)

    def affine(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """x * scale + shift per channel, folded into a weighted layer where one stands right before."""
        if not (torch.isfinite(scale).all() and torch.isfinite(shift).all()):
            raise Unreadable("a normalisation has a scale or shift that is NaN or infinite")
        last = self.layers[-1] if self.layers else None
        if last is not None and last.weight is not None and last.bias is not None:
            self.layers[-1] = replace(last, weight=last.weight * scale, bias=last.bias * scale + shift)
            return
        self.append(LayerKind.AFFINE, weight=scale, bias=shift)
