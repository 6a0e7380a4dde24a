"""The verifier: a small 3D network that looks at the whole of a candidate."""

from __future__ import annotations

from torch import Tensor, nn

from t3ssfast.errors import ConfigError
from t3ssfast.models.metadata import BOX_ANSWERS

__all__ = ["DEFAULT_BOX_PX", "BoxNet"]

DEFAULT_BOX_PX = 48


class BoxNet(nn.Module):
    """Convolutions over a cubic box: is there a T3SS, and where is its centre.

    conv 5x5x5 of stride 2, then three of 3x3x3 with pooling before the second and the third, one hidden
    layer. Batch normalisation, ReLU.

    Parameters
    ----------
    channels
        Feature maps of the four convolutions.
    hidden
        Width of the hidden layer.
    box
        Side of the cubic box in voxels, a multiple of 8, at least 16.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (12, 24, 48, 48),
        hidden: int = 64,
        box: int = DEFAULT_BOX_PX,
    ) -> None:
        super().__init__()
        if box < 16 or box % 8 or min(*channels, hidden) < 1:
            raise ConfigError(
                f"A box network of channels {channels}, hidden {hidden} and box {box} cannot be built; give "
                "widths of at least 1 and a box of 16, 24, 32 ..."
            )
        a, b, c, d = channels
        self.features = nn.Sequential(
            nn.Conv3d(1, a, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm3d(a),
            nn.ReLU(),
            nn.Conv3d(a, b, 3, padding=1, bias=False),
            nn.BatchNorm3d(b),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(b, c, 3, padding=1, bias=False),
            nn.BatchNorm3d(c),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(c, d, 3, padding=1, bias=False),
            nn.BatchNorm3d(d),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(d * (box // 8) ** 3, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(BOX_ANSWERS)),
        )

    def forward(self, boxes: Tensor) -> Tensor:
        """(M, 1, box, box, box) float32 -> (M, 4): logit, and z, y, x from the box's middle to the centre."""
        answers: Tensor = self.head(self.features(boxes))
        return answers
