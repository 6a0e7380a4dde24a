"""The classifier: a LeNet for square windows of any size."""

from __future__ import annotations

from torch import Tensor, nn

from t3ssfast.errors import ConfigError

__all__ = ["DEFAULT_WINDOW_PX", "LeNet"]

# Also the window assumed for a classifier without metadata.
DEFAULT_WINDOW_PX = 50


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling, for windows of any size.

    No layer depends on pixels outside the window or on the rest of the batch, so `score_windows` can slide
    the network over an image exactly.

    Parameters
    ----------
    channels
        Output channels of the two 5x5 convolutions, each followed by 2x2 pooling.
    hidden
        Widths of the two hidden layers.
    classes
        Number of classes.
    window
        Side of the window in pixels, at least 16.
    """

    def __init__(
        self,
        channels: tuple[int, int] = (6, 16),
        hidden: tuple[int, int] = (120, 84),
        classes: int = 2,
        window: int = DEFAULT_WINDOW_PX,
    ) -> None:
        super().__init__()
        side = ((window - 4) // 2 - 4) // 2
        if window < 16 or min(*channels, *hidden, classes) < 1:
            raise ConfigError(
                f"LeNet: channels {channels}, hidden {hidden}, {classes} classes and window {window} do not "
                "make a network; give widths of at least 1 and a window of at least 16."
            )
        self.features = nn.Sequential(
            nn.Conv2d(1, channels[0], 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels[0], channels[1], 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[1] * side * side, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], classes),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """(M, 1, window, window) float32 -> (M, classes) logits."""
        logits: Tensor = self.classifier(self.features(windows))
        return logits
