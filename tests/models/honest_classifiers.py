"""Classifiers of windows as other people write them: LeNets, and small relatives of well-known networks.

Each maps (M, 1, 50, 50) to (M, 1), (M, 2) or (M, 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassicLeNet(nn.Module):
    """LeNet-5 with modules: 6-16-120-84, tanh, average pooling."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5), nn.Tanh(), nn.AvgPool2d(kernel_size=2, stride=2),
            nn.Conv2d(6, 16, kernel_size=5), nn.Tanh(), nn.AvgPool2d(kernel_size=2, stride=2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 9 * 9, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
            nn.Linear(84, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x)


class TutorialLeNet(nn.Module):
    """The network of PyTorch's tutorials: functions, and a view to a fixed number of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 9 * 9, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 2)

    def forward(self, x: Tensor) -> Tensor:
        # The pooling size as a tuple, then as a number.
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)

    def num_flat_features(self, x: Tensor) -> int:
        num_features = 1
        for s in x.size()[1:]:
            num_features *= s
        return num_features


class ViewLeNet(nn.Module):
    """Functions and one of several ways to flatten and to end."""

    def __init__(self, flatten: str, end: str, classes: int = 2) -> None:
        super().__init__()
        self.flatten = flatten
        self.end = end
        self.pool = nn.MaxPool2d(2, 2)
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 8, 5)
        self.fc1 = nn.Linear(8 * 9 * 9, 20)
        self.fc2 = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(self.conv2(x).relu())
        if self.flatten == "reshape":
            x = x.reshape(x.size(0), -1)
        elif self.flatten == "view":
            x = x.view(x.shape[0], -1)
        elif self.flatten == "fixed":
            x = x.view(-1, 8 * 9 * 9)
        elif self.flatten == "method":
            x = x.flatten(start_dim=1)
        elif self.flatten == "unpacked":
            n, c, h, w = x.shape
            x = x.reshape(n, c * h * w)
        elif self.flatten == "len":
            x = torch.reshape(x, [len(x), 8 * 9 * 9])
        else:
            x = torch.flatten(x, 1)
        x = self.fc2(F.relu(self.fc1(x), inplace=True))
        if self.end == "log_softmax":
            return F.log_softmax(x, dim=1)
        if self.end == "softmax":
            return F.softmax(x, dim=-1)
        if self.end == "torch softmax":
            return torch.softmax(x, 1)
        if self.end == "sigmoid":
            return torch.sigmoid(x)
        if self.end == "method sigmoid":
            return x.sigmoid()
        return x


class RegularisedLeNet(nn.Module):
    """Batch normalisation, dropout of elements and channels, and any activation."""

    def __init__(self, activation: nn.Module, pool: nn.Module, classes: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
        self.act = activation
        self.pool = pool
        self.drop2d = nn.Dropout2d(0.1)
        self.drop = nn.Dropout(p=0.5)
        self.fc1 = nn.Linear(8 * 12 * 12, 24)
        self.bn3 = nn.BatchNorm1d(24)
        self.fc2 = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn1(self.conv1(x))))
        x = self.drop2d(x)
        x = self.pool(self.act(self.bn2(self.conv2(x))))
        x = torch.flatten(x, start_dim=1)
        x = self.drop(self.act(self.bn3(self.fc1(x))))
        x = F.dropout(x, p=0.2, training=self.training)
        return self.fc2(x)


class GlobalPooling(nn.Module):
    """Fully convolutional, ended by one of several global poolings."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.how == "mean list":
            x = x.mean([2, 3])
        elif self.how == "mean tuple":
            x = torch.mean(x, dim=(2, 3))
        elif self.how == "mean twice":
            x = x.mean(dim=3).mean(dim=2)
        elif self.how == "mean keepdim":
            x = x.mean(dim=(2, 3), keepdim=True).squeeze(3).squeeze(2)
        elif self.how == "functional":
            x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        elif self.how == "module":
            x = torch.flatten(self.pool(x), 1)
        elif self.how == "squeeze":
            x = F.adaptive_avg_pool2d(x, (1, 1)).squeeze(-1).squeeze(-1)
        elif self.how == "max":
            x = F.adaptive_max_pool2d(x, 1).view(x.size(0), -1)
        elif self.how == "amax":
            x = x.amax(dim=(2, 3))
        else:
            x = F.avg_pool2d(x, kernel_size=x.size()[2:]).view(x.shape[0], x.shape[1])
        return self.head(x)


class BasicBlock(nn.Module):
    """torchvision's residual block, with an optional downsampling path."""

    expansion: int = 1

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        out = self.relu(out)
        return out


class SmallResNet(nn.Module):
    """A ResNet of torchvision's style with two stages."""

    def __init__(self, layers: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.inplanes = 8
        self.conv1 = nn.Conv2d(1, 8, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(8, layers[0])
        self.layer2 = self._make_layer(16, layers[1], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16 * BasicBlock.expansion, 2)

    def _make_layer(self, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )
        made = [BasicBlock(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes
        made += [BasicBlock(planes, planes) for _ in range(1, blocks)]
        return nn.Sequential(*made)

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def _scale(self, x: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return self._scale(x) * x


class InvertedResidual(nn.Module):
    """MobileNet's block: expand, depthwise convolution, squeeze-excite, project."""

    def __init__(self, inp: int, oup: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        hidden = inp * 4
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = nn.Sequential(
            nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden),
            SqueezeExcitation(hidden, 4), activation(inplace=True),
            nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


def mobile_net(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), activation(inplace=True),
        InvertedResidual(8, 8, 1, activation), InvertedResidual(8, 12, 2, activation),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2),
    )  # fmt: skip


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over channels, by moving them to the end and back."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        x = x.permute(0, 3, 1, 2)
        return x


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, layer normalisation, and two linear layers over the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x)
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = self.gamma * x
        x = x.permute(0, 3, 1, 2)
        return shortcut + x


def conv_next() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=4), LayerNorm2d(8, eps=1e-6), ConvNeXtBlock(8), ConvNeXtBlock(8),
        LayerNorm2d(8), nn.Conv2d(8, 12, 2, stride=2), ConvNeXtBlock(12),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.LayerNorm(12), nn.Linear(12, 2),
    )  # fmt: skip


class DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.conv(self.relu(self.norm(torch.cat(features, 1))))


class DenseNet(nn.Module):
    """DenseNet: each layer takes the list of all features before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 5, 2, 2)
        self.layers = nn.ModuleList([DenseLayer(6 + 4 * k, 4) for k in range(3)])
        self.transition = nn.Sequential(
            nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 8, 1), nn.AvgPool2d(2, 2)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = self.transition(torch.cat(features, dim=1))
        return self.head(F.adaptive_avg_pool2d(F.relu(x), (1, 1)).flatten(1))


class Inception(nn.Module):
    """Parallel branches, concatenated, as GoogLeNet has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1 = nn.Conv2d(width, 4, 1)
        self.branch2 = nn.Sequential(nn.Conv2d(width, 4, 1), nn.ReLU(True), nn.Conv2d(4, 6, 3, padding=1))
        self.branch3 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), nn.Conv2d(width, 2, 1)
        )
        self.branch4 = nn.Sequential(
            nn.Conv2d(width, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        )

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self._forward(x), 1)


def inception() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2), nn.ReLU6(), Inception(8), nn.MaxPool2d(3, 2, ceil_mode=True), Inception(16),
        nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Dropout(0.4), nn.Linear(96, 2),
    )  # fmt: skip


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit: split channels, convolve half of them, shuffle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = torch.cat((x1, self.branch(x2)), dim=1)
        n, c, h, w = out.size()
        out = out.view(n, 2, c // 2, h, w)
        out = torch.transpose(out, 1, 2).contiguous()
        return out.view(n, c, h, w)


def shuffle_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.MaxPool2d(3, 2), ShuffleUnit(8), ShuffleUnit(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2, bias=False),
    )  # fmt: skip


class MaxFeatureMap(nn.Module):
    """Competing halves of the channels (split and maximum), as light CNNs have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 5, 3)
        self.fc = nn.Linear(6 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(self.conv(x), 6, dim=1)
        x = torch.max(a, b)
        return self.fc(F.max_pool2d(x, 4).flatten(1))
