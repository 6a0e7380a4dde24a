"""The verifiers: small networks on half-planes around a particle's axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError

__all__ = ["AZIMUTHS", "DEFAULT_HEIGHT_PX", "AxialKindNet", "AxialNet"]

# Half-planes sampled around an axis.
AZIMUTHS = 12
DEFAULT_HEIGHT_PX = 48


class AxialNet(nn.Module):
    """Classify a candidate and estimate its centre and axis, from half-planes that end at its axis.

    All half-planes share four 3x3 convolutions (batch normalisation, ReLU, three poolings). Each is stacked
    with the opposite half-plane, which reveals a tilted axis, and with the mean over azimuth, which keeps the
    rings and averages out noise. The logit and the offset along the axis come from the mean and the maximum
    over half-planes, so a rotation about the axis does not change them. A half-plane has `height` rows, a
    multiple of 16, and half as many columns.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (16, 32, 48, 64),
        hidden: int = 64,
        height: int = DEFAULT_HEIGHT_PX,
    ) -> None:
        super().__init__()
        if height < 16 or height % 16 or min(*channels, hidden) < 1:
            raise ConfigError(
                f"AxialNet: channels {channels}, hidden {hidden} and height {height} do not make a network; "
                "give widths of at least 1 and a height that is a multiple of 16."
            )
        a, b, c, d = channels
        # The names of layers and buffers are the keys of state dicts in existing model files.
        self.features = nn.Sequential(
            *_convolution(3, a),
            *_convolution(a, b),
            nn.MaxPool2d(2),
            *_convolution(b, c),
            nn.MaxPool2d(2),
            *_convolution(c, d),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(d * (height // 8) * (height // 16), hidden),
            nn.ReLU(),
        )
        self.whole = nn.Linear(2 * hidden, 2)  # Logit and offset along the axis.
        self.sides = nn.Linear(hidden, 2)
        angle = [2 * math.pi * k / AZIMUTHS for k in range(AZIMUTHS)]
        # Arithmetic on tensors of the meta device, where networks are built, would import PyTorch's compiler.
        across = [[math.cos(a) * 2 / AZIMUTHS, math.sin(a) * 2 / AZIMUTHS] for a in angle]
        self.register_buffer("across", torch.tensor(across))
        self.across: Tensor

    def forward(self, planes: Tensor) -> Tensor:
        """(M, azimuths, height, height / 2) float32 -> (M, 6), in the order of `VERIFIER_ANSWERS`."""
        count, azimuths = planes.shape[0], planes.shape[1]
        features = self.features(_stack(planes)).reshape(count, azimuths, -1)
        return torch.cat([self.whole(_over_azimuth(features)), self.lateral(features)], dim=1)

    def lateral(self, features: Tensor) -> Tensor:
        """Return offset and tilt (M, 4): each half-plane predicts components along its own direction."""
        return torch.matmul(self.sides(features).transpose(1, 2), self.across).reshape(len(features), 4)


class AxialKindNet(AxialNet):
    """An `AxialNet` that tells further kinds of particles from the first.

    A second fully connected layer on the same convolutions, pooled over half-planes like the first, gives the
    logits of the further kinds. The answers of the `AxialNet` in it do not depend on these layers.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (16, 32, 48, 64),
        hidden: int = 64,
        height: int = DEFAULT_HEIGHT_PX,
        kinds: int = 2,
    ) -> None:
        super().__init__(channels, hidden, height)
        if kinds < 2:
            raise ConfigError(f"AxialKindNet: {kinds} kinds; give 2 or more, or use an AxialNet.")
        inputs = channels[-1] * (height // 8) * (height // 16)
        self.kind_features = nn.Sequential(nn.Dropout(0.3), nn.Linear(inputs, hidden), nn.ReLU())
        self.other_kinds = nn.Linear(4 * hidden, kinds - 1)

    def forward(self, planes: Tensor) -> Tensor:
        """(M, azimuths, height, height / 2) float32 -> (M, kinds + 5), in the order of `verifier_answers`."""
        count, azimuths = planes.shape[0], planes.shape[1]
        convolved = features = _stack(planes)
        for index, layer in enumerate(self.features):
            features = layer(features)
            # The first 16 layers are the convolutions, flattened; TorchScript takes no name for the number.
            if index == 15:
                convolved = features
        features = features.reshape(count, azimuths, -1)
        of_kinds = self.kind_features(convolved).reshape(count, azimuths, -1)
        pooled = _over_azimuth(features)
        first = self.whole(pooled)
        others = self.other_kinds(torch.cat([pooled, _over_azimuth(of_kinds)], dim=1))
        return torch.cat([first[:, :1], others, first[:, 1:], self.lateral(features)], dim=1)


def _stack(planes: Tensor) -> Tensor:
    """Return (M * azimuths, 3, height, radius): each half-plane, the opposite one, and the mean."""
    count, azimuths, height, radius = planes.shape
    mean = planes.mean(dim=1, keepdim=True).expand(count, azimuths, height, radius)
    opposite = planes.roll(azimuths // 2, dims=1)
    return torch.stack([planes, opposite, mean], dim=2).reshape(count * azimuths, 3, height, radius)


def _over_azimuth(features: Tensor) -> Tensor:
    """Return mean and maximum over half-planes: (M, azimuths, n) -> (M, 2 n)."""
    return torch.cat([features.mean(dim=1), features.amax(dim=1)], dim=1)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
