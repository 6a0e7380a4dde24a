"""The chain of layers while a model is being read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from t3ssfast.kernels.plan.layers import Layer, LayerKind, NoDensePlanError

__all__ = ["ChainBuilder"]


class ChainBuilder:
    """Collects the layers of a plan while following a (M, 1, size, size) input through a model."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node  # the last operation
        self.layers: list[Layer] = []
        self.channels = 1
        self.map_size: tuple[int, int] = node.meta["shape"][2:4]  # of a window's own feature map
        self.stride = (1, 1)  # product of all strides
        self.flat = False  # whether the last output is (M, channels * y * x)

    @property
    def ndim(self) -> int:
        """Number of axes of the last output."""
        return len(self.node.meta["shape"])

    @property
    def flat_size(self) -> int:
        """Number of values of a window, over all channels."""
        return self.channels * self.map_size[0] * self.map_size[1]

    def append(self, kind: LayerKind, out_channels: int | None = None, **fields: Any) -> None:
        """Append a layer; as many channels out as in where None."""
        channels = (self.channels, self.channels if out_channels is None else out_channels)
        self.channels = channels[1]
        self.layers.append(Layer(kind, channels, outputs_in_window=self.flat_size, **fields))

    def apply_kernel(
        self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], name: str
    ) -> tuple[int, int]:
        """Update `map_size` and `stride` for a kernel; return its dilation on the stride-1 map."""
        if self.flat:
            raise NoDensePlanError(f"{name} comes behind the flattening")
        dense_dilation = (self.stride[0] * dilation[0], self.stride[1] * dilation[1])
        y, x = ((self.map_size[i] - 1 - (kernel[i] - 1) * dilation[i]) // stride[i] + 1 for i in range(2))
        self.map_size = (y, x)
        self.stride = (self.stride[0] * stride[0], self.stride[1] * stride[1])
        return dense_dilation

    def append_weighted(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dilation: tuple[int, int], linear: bool
    ) -> None:
        """Append a convolution or linear layer with `weight` (out, in, y, x)."""
        weight = weight.detach().cpu().to(torch.float64)
        shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().cpu().to(torch.float64)
        if self.layers and self.layers[-1].kind == LayerKind.AFFINE:
            # Without padding, an affine map before a weighted sum is part of the sum.
            affine = self.layers.pop()
            assert affine.weight is not None
            assert affine.bias is not None
            shift = shift + torch.einsum("oiyx,i->o", weight, affine.bias)
            weight = weight * affine.weight[None, :, None, None]
        if not (torch.isfinite(weight).all() and torch.isfinite(shift).all()):
            raise NoDensePlanError("a weight is NaN or infinite")
        self.append(
            LayerKind.LINEAR if linear else LayerKind.CONVOLUTION,
            int(weight.shape[0]),
            kernel=(int(weight.shape[2]), int(weight.shape[3])),
            dilation=dilation,
            weight=weight.permute(2, 3, 1, 0).contiguous(),
            bias=shift,
        )

    def ensure_head(self) -> None:
        """Append an identity layer as the head if there is no fully connected layer yet."""
        if any(layer.kind == LayerKind.LINEAR for layer in self.layers):
            return
        if self.map_size != (1, 1):
            raise NoDensePlanError("the answer is not made by a fully connected layer")
        identity = torch.eye(self.channels, dtype=torch.float64)[:, :, None, None]
        self.append_weighted(identity, None, (1, 1), linear=True)

    def append_affine(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """Append x * scale + shift per channel, folded into a weighted layer directly before it."""
        if not (torch.isfinite(scale).all() and torch.isfinite(shift).all()):
            raise NoDensePlanError("a normalisation has a scale or shift that is NaN or infinite")
        last = self.layers[-1] if self.layers else None
        if last is None or last.weight is None or last.bias is None:
            self.append(LayerKind.AFFINE, weight=scale, bias=shift)
        else:
            self.layers[-1] = replace(last, weight=last.weight * scale, bias=last.bias * scale + shift)
