"""The classifier: a LeNet for windows of any size."""

from __future__ import annotations

from torch import Tensor, nn

from t3ssfast.errors import ConfigError

__all__ = ["DEFAULT_WINDOW_PX", "LeNet"]

# Also what a classifier without metadata is taken to look at.
DEFAULT_WINDOW_PX = 50


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998), modified: ReLU, max-pooling, and any window.

    conv 5x5, pool 2, conv 5x5, pool 2, two hidden layers, classes. Nothing in it looks beyond a window or
    at the rest of a batch, so that it can be slid over an image exactly.

    Parameters
    ----------
    channels
        Feature maps of the two convolutions.
    hidden
        Widths of the two hidden layers.
    classes
        Number of answers.
    window
        Side of the square window in pixels, at least 16.
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
                f"A LeNet of channels {channels}, hidden {hidden}, {classes} classes and window {window} "
                "cannot be built; give widths of at least 1 and a window of at least 16."
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
        answers: Tensor = self.classifier(self.features(windows))
        return answers
