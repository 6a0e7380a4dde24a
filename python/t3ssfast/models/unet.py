"""The segmenter: a 2D U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError

__all__ = ["UNet"]


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with padding, each followed by batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """A 2D U-Net (Ronneberger et al. 2015) with batch normalisation; padding keeps the image size.

    The first level has `base` channels, each further one twice as many. The output is for the middle slice.
    """

    def __init__(self, depth: int = 4, base: int = 16, slices: int = 1) -> None:
        super().__init__()
        if depth < 1 or base < 1:
            raise ConfigError(f"U-Net: depth is {depth} and base is {base}; give at least 1 for both.")
        widths = [base * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double_convolution(a, b) for a, b in zip([slices, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        upward = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upward)
        self.merge = nn.ModuleList(_double_convolution(a, b) for a, b in upward)
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, slices, H, W) float32, H and W multiples of 2**depth -> (N, 1, H, W) logits."""
        skips: list[Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        for step, (up, merge) in enumerate(zip(self.up, self.merge)):  # noqa: B905  (TorchScript has no strict)
            x = merge(torch.cat([skips[len(skips) - 2 - step], up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits
