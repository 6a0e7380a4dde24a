"""The verifier: a small network that looks at a candidate round the axis it would have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError
from t3ssfast.models.metadata import VERIFIER_ANSWERS

__all__ = ["AZIMUTHS", "DEFAULT_HEIGHT_PX", "AxialNet"]

# Half-planes round an axis.
AZIMUTHS = 12
DEFAULT_HEIGHT_PX = 48


class AxialNet(nn.Module):
    """Convolutions over half-planes that end at an axis: is there a T3SS about it, where, and how it leans.

    A T3SS has rings about an axis that stands on the membrane. Every half-plane is seen by the same layers
    beside the one opposite, which shows an axis that leans, and the mean of all, in which the rings stay
    while noise goes; what they make of them is averaged, and the largest kept, over the half-planes: how a
    particle is turned about its axis makes no difference. Four 3x3 convolutions with pooling before the third
    and the fourth and after it, one layer for each half-plane. Batch normalisation, ReLU.

    Parameters
    ----------
    channels
        Feature maps of the four convolutions.
    hidden
        Width of what is kept of each half-plane.
    height
        Rows of a half-plane, a multiple of 16, at least 16; it has half as many columns.
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
                f"An axial network of channels {channels}, hidden {hidden} and height {height} cannot be "
                "built; give widths of at least 1 and a height of 16, 32, 48 ..."
            )
        a, b, c, d = channels
        self.features = nn.Sequential(
            *_layers(3, a),
            *_layers(a, b),
            nn.MaxPool2d(2),
            *_layers(b, c),
            nn.MaxPool2d(2),
            *_layers(c, d),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(d * (height // 8) * (height // 16), hidden),
            nn.ReLU(),
        )
        self.whole = nn.Linear(2 * hidden, len(VERIFIER_ANSWERS) - 4)
        self.sides = nn.Linear(hidden, 2)
        angle = [2 * math.pi * k / AZIMUTHS for k in range(AZIMUTHS)]
        across = torch.tensor([[math.cos(a), math.sin(a)] for a in angle])
        self.register_buffer("across", across * 2 / AZIMUTHS)
        self.across: Tensor

    def forward(self, planes: Tensor) -> Tensor:
        """(M, azimuths, height, height / 2) float32 -> (M, 6), as `VERIFIER_ANSWERS` names them."""
        count, azimuths, height, radius = planes.shape
        mean = planes.mean(dim=1, keepdim=True).expand(count, azimuths, height, radius)
        opposite = planes.roll(azimuths // 2, dims=1)
        seen = torch.stack([planes, opposite, mean], dim=2).reshape(count * azimuths, 3, height, radius)
        each = self.features(seen).reshape(count, azimuths, -1)
        whole = self.whole(torch.cat([each.mean(dim=1), each.amax(dim=1)], dim=1))
        # What one half-plane says points along it.
        sideways = torch.matmul(self.sides(each).transpose(1, 2), self.across).reshape(count, 4)
        return torch.cat([whole, sideways], dim=1)


def _layers(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
