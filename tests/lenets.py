"""Small LeNet-like models with random weights, and their scores window by window."""

from __future__ import annotations

import torch
from torch import nn


def lenet(
    size: int = 20,
    channels: tuple[int, ...] = (3, 5),
    kernels: tuple[int, ...] = (5, 3),
    pools: tuple[nn.Module, ...] = (nn.MaxPool2d(2), nn.MaxPool2d(2)),
    hidden: tuple[int, ...] = (7,),
    classes: int = 2,
    activation: nn.Module | None = None,
    norm: bool = False,
    seed: int = 0,
) -> nn.Sequential:
    torch.manual_seed(seed)
    activation = nn.ReLU() if activation is None else activation
    layers: list[nn.Module] = []
    width = 1
    for out, kernel, pool in zip(channels, kernels, pools, strict=True):
        layers += [nn.Conv2d(width, out, kernel)]
        if norm:
            layers += [nn.BatchNorm2d(out)]
        layers += [activation, pool]
        width = out
    layers += [nn.Flatten()]
    features = nn.Sequential(*layers).eval()(torch.zeros(1, 1, size, size)).shape[1]
    for out in hidden:
        layers += [nn.Linear(features, out), activation, nn.Dropout(0.5)]
        features = out
    model = nn.Sequential(*layers, nn.Linear(features, classes)).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def one_by_one(model: nn.Module, image: torch.Tensor, size: int) -> torch.Tensor:
    """Run the model window by window, the definition of `score_windows`: (C, ..., H-size+1, W-size+1)."""
    windows = image.unfold(-2, size, 1).unfold(-2, size, 1)
    with torch.no_grad():
        scores = torch.cat([model(w) for w in windows.reshape(-1, 1, size, size).split(64)])
    return scores.T.reshape(-1, *windows.shape[:-2])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
