"""Classifiers that differ in how they are written: constants, checks, casts, buffers, sharing, arithmetic.

Each maps (M, 1, 50, 50) to (M, 1), (M, 2) or (M, 3).
"""

# TorchScript does not understand annotations that are only strings.
from typing import Final, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def trunk(width: int = 6) -> nn.Sequential:
    """Convolutions and pooling to (M, width, 5, 5)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 5),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Conv2d(width, width, 3, stride=2),
        nn.MaxPool2d(2, 1, padding=0),
        nn.AdaptiveAvgPool2d(5),
    )


class Flags(nn.Module):
    """Python constants choose between branches."""

    def __init__(self, *, normalise: bool, head: str) -> None:
        super().__init__()
        self.normalise = normalise
        self.use_bias = False
        self.scale = 2.5
        self.depth = 2
        self.head_name = head
        self.trunk = trunk()
        self.mix = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(150, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = x / self.scale
        x = self.trunk(x)
        for _ in range(self.depth):
            x = self.mix(x)
        if self.use_bias and self.normalise:
            x = x + 1.0
        x = torch.tanh(x) if self.head_name == "tanh" else F.leaky_relu(x, 0.2)
        return self.fc(x.flatten(1))


class OptionalParts(nn.Module):
    """Optional submodules and buffers, set or not."""

    mean: Optional[Tensor]  # noqa: UP045 - as older code spells it

    def __init__(self, *, complete: bool) -> None:
        super().__init__()
        self.trunk = trunk()
        self.norm = nn.BatchNorm2d(6) if complete else None
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.25) if complete else None)
        self.fc = nn.Linear(150, 2, bias=complete)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean
        if mean is not None:
            x = x - mean
        x = self.trunk(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.fc(torch.flatten(x, 1))


class Guards(nn.Module):
    """Checks of the input by assertions and exceptions with formatted messages."""

    window: Final[int]

    def __init__(self) -> None:
        super().__init__()
        self.window = 50
        self.trunk = trunk()
        self.fc = nn.Linear(150, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"expected 4 axes, not {x.dim()}")
        assert x.shape[1] == 1, f"expected one channel, not {x.shape[1]}"
        if x.size(-1) != self.window or x.size(-2) != self.window:
            raise RuntimeError("windows must have " + str(self.window) + " pixels")
        x = self.trunk(x)
        assert x.shape[2] == 5 and x.shape[3] == 5  # noqa: PT018
        return self.fc(x.flatten(1))


class InnerTuples(nn.Module):
    """Submodules that return tuples, lists and dictionaries of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5, 4)
        self.fc = nn.Linear(4 * 144, 2)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :4], x[:, 4:]

    def both(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return x, self.halves(x)

    def forward(self, x: Tensor) -> Tensor:
        whole, (first, second) = self.both(self.conv(x))
        out = first * torch.sigmoid(second) + whole[:, 2:6]
        return self.fc(out.flatten(1))


class InputStatistics(nn.Module):
    """Normalisation inside the network, by buffers or by the statistics of each window."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mean", torch.tensor([0.1]).view(1, 1, 1, 1))
        self.register_buffer("std", torch.tensor([1.7]).view(1, 1, 1, 1))
        self.trunk = trunk()
        self.fc = nn.Linear(150, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "buffers":
            x = (x - self.mean) / self.std
        elif self.how == "windows":
            mean = x.mean(dim=(1, 2, 3), keepdim=True)
            std = x.std(dim=(1, 2, 3), keepdim=True)
            x = (x - mean) / (std + 1e-6)
        elif self.how == "clamped":
            x = torch.clamp(x, -3.0, 3.0) * 0.5
        else:
            mean = torch.mean(x, (2, 3), True)
            x = (x - mean) * torch.rsqrt(torch.var(x, dim=(2, 3), unbiased=False, keepdim=True) + 1e-5)
        return self.fc(torch.flatten(self.trunk(x), 1))


class SharedLayers(nn.Module):
    """One layer used three times, under two names, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 4, 4)
        self.mix = nn.Conv2d(6, 6, 3, padding=1)
        self.again = self.mix
        self.tied = nn.Conv2d(6, 6, 3, padding=1)
        self.tied.weight = self.mix.weight
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.act(self.mix(self.act(self.again(self.act(self.mix(x))))))
        return self.fc(self.tied(x).mean((-2, -1)))


class ScalarArithmetic(nn.Module):
    """Numbers on both sides of every operator, and operators that work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 4, 4)
        self.weight = nn.Parameter(torch.rand(6, 1, 1))
        self.fc = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * self.stem(x) - 1
        x = 1.0 - x / 3 + 0.5
        x = 1 / (1 + torch.exp(-x))
        x = x**2 + x.pow(3) * 0.1 + (-x).abs().sqrt()
        x = x * self.weight + self.weight
        x *= 0.5
        x += 1
        x -= self.weight
        x = x.mul(2.0).add(x, alpha=0.5).sub(0.1).div(1.5)
        x = torch.minimum(torch.maximum(x, x * 0.5), torch.ones_like(x) * 4)
        return self.fc(torch.log(1 + x.square()).mean(dim=[2, 3]))


class Casts(nn.Module):
    """Casts to float32 of what is float32 already, and to the type of other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk()
        self.fc = nn.Linear(150, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        x = x.to(torch.float32).contiguous()
        x = x.to(self.fc.weight.dtype)
        x = self.trunk(x).type_as(self.fc.weight).clone().detach()
        return self.fc(x.flatten(1)).to(dtype=torch.float)


class Containers(nn.Module):
    """Loops over lists, dictionaries and slices of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Identity(), nn.Conv2d(1, 6, 4, 4), nn.Identity())
        self.convs = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=k, dilation=k) for k in (1, 2, 3)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.Identity()])
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "elu": nn.ELU(), "softplus": nn.Softplus()})
        self.heads = nn.ModuleList([nn.Linear(6, 2) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms):  # noqa: B905 - TorchScript has no strict
            x = norm(conv(x))
        for act in self.acts.values():
            x = act(x)
        for k, conv in enumerate(self.convs):
            x = x + conv(x) * k
        x = x.mean([2, 3])
        outputs = []
        for head in self.heads:
            outputs.append(head(x))
        return torch.stack(outputs, dim=0).sum(0)


class FinalConstants(nn.Module):
    """Final attributes of many types, some of which forward reads; a dictionary that it does not."""

    stride: Final[int] = 4
    slope: Final[float] = 0.05
    mode: Final[str] = "mean"
    sizes: Final[list[int]]
    shape: Final[tuple[int, int]]

    def __init__(self, *, dictionary: bool = False) -> None:
        super().__init__()
        self.sizes = [3, 3]
        self.shape = (6, 6)
        self.names = ["a", "b"]
        if dictionary:
            self.table = {"a": 1, "b": 2}
        self.weight = nn.Parameter(torch.randn(6, 1, 5, 5) * 0.2)
        self.bias = nn.Parameter(torch.randn(6))
        self.fc = nn.Linear(216, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=2)
        x = F.leaky_relu(F.avg_pool2d(x, self.sizes, stride=1), self.slope)
        x = F.adaptive_avg_pool2d(x, self.shape)
        if self.mode == "mean":
            x = x - x.mean(dim=1, keepdim=True)
        return F.linear(x.flatten(1), self.fc.weight, self.fc.bias)


class TwoOutputs(nn.Module):
    """Two heads of one output each, concatenated, with softmax as a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk()
        self.no = nn.Linear(150, 1)
        self.yes = nn.Sequential(nn.Linear(150, 10), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(10, 1))
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x).flatten(1)
        return self.softmax(torch.cat((self.no(x), self.yes(x)), -1))


class Unsqueezing(nn.Module):
    """Axes added, removed, moved and indexed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 5)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1).unsqueeze(1).expand(-1, 3, -1, -1)
        x = self.conv(x)[:, :, 1:-1, ::2]
        x = x.flatten(2).transpose(1, 2)
        x = x.mean(1) + x[:, 0] + x.select(1, -1)
        return self.fc(x)
