"""Networks of other people with other inputs and outputs, fitted to what a detection expects."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["AdaptedNetwork"]


class AdaptedNetwork(nn.Module):
    """A network that takes RGB images, leaves out an axis, or has a channel for the background.

    Parameters
    ----------
    network
        The network.
    repeat
        How often the single grey channel is repeated, 3 for RGB.
    two_class
        What two output channels (background, membrane) hold: "probabilities" or "logits"; "" for one channel.
    """

    def __init__(self, network: nn.Module, repeat: int = 1, two_class: str = "") -> None:
        super().__init__()
        self.network = network
        self.repeat = repeat
        self.two_class = two_class

    def forward(self, image: Tensor) -> Tensor:
        """(N, channels, H, W) float32 -> (N, 1, H, W), or a classifier's (N, classes)."""
        if self.repeat > 1:
            image = image.expand(image.shape[0], self.repeat, image.shape[2], image.shape[3])
        outputs: Tensor = self.network(image)
        if outputs.dim() == 3:
            outputs = outputs.unsqueeze(1)
        if self.two_class == "probabilities":
            return outputs[:, 1:2]
        if self.two_class == "logits":
            # The sigmoid of the difference is the softmax of the two.
            return outputs[:, 1:2] - outputs[:, 0:1]
        return outputs
