"""Segmenters of other kinds than `honest_unets`: U-Net++, atrous, LinkNet, denoiser, attention, ConvNeXt.

Each maps (N, 1, H, W) to (N, 1, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from honest_classifiers import ConvNeXtBlock, LayerNorm2d
from honest_unets import DoubleConv, PaddingUNet
from torch import Tensor, nn


class Atrous(nn.Module):
    """Parallel dilated convolutions and image pooling, as DeepLab has them."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.convs = nn.ModuleList(
            [nn.Conv2d(width, 4, 1)] + [nn.Conv2d(width, 4, 3, padding=r, dilation=r) for r in (2, 4, 6)]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1, bias=False), nn.ReLU())
        self.project = nn.Sequential(nn.Conv2d(20, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        input_shape = x.shape[-2:]
        x = self.stem(x)
        results = []
        for conv in self.convs:
            results.append(conv(x))
        size = x.shape[-2:]
        results.append(F.interpolate(self.pool(x), size=size, mode="bilinear", align_corners=False))
        x = self.classifier(self.project(torch.cat(results, dim=1)))
        return F.interpolate(x, size=input_shape, mode="bilinear", align_corners=False)


class NestedUNet(nn.Module):
    """U-Net++ of two poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv0_0 = DoubleConv(1, 4)
        self.conv1_0 = DoubleConv(4, 8)
        self.conv2_0 = DoubleConv(8, 8)
        self.conv0_1 = DoubleConv(12, 4)
        self.conv1_1 = DoubleConv(16, 8)
        self.conv0_2 = DoubleConv(16, 4)
        self.final = nn.Conv2d(4, 1, kernel_size=1)

    def forward(self, input: Tensor) -> Tensor:
        x0_0 = self.conv0_0(input)
        x1_0 = self.conv1_0(self.pool(x0_0))
        x0_1 = self.conv0_1(torch.cat([x0_0, self.up(x1_0)], 1))
        x2_0 = self.conv2_0(self.pool(x1_0))
        x1_1 = self.conv1_1(torch.cat([x1_0, self.up(x2_0)], 1))
        x0_2 = self.conv0_2(torch.cat([x0_0, x0_1, self.up(x1_1)], 1))
        return self.final(x0_2)


class PadAndCrop(nn.Module):
    """Pad to a multiple of four by reflection, run a U-Net, cut out the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.net = PaddingUNet()

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2], x.shape[-1]
        bottom, right = (4 - h % 4) % 4, (4 - w % 4) % 4
        y = F.pad(x, (8, 8 + right, 8, 8 + bottom), mode="reflect")
        return self.net(y)[..., 8 : 8 + h, 8 : 8 + w]


class Denoiser(nn.Module):
    """DnCNN: the network predicts what to subtract."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
        for _ in range(3):
            layers += [
                nn.Conv2d(6, 6, 3, padding=1, bias=False),
                nn.BatchNorm2d(6, eps=1e-4),
                nn.ReLU(inplace=True),
            ]
        self.dncnn = nn.Sequential(*layers, nn.Conv2d(6, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x - self.dncnn(x), min=-5, max=5)


class LinkNet(nn.Module):
    """Skips that are added, to a decoder of transposed convolutions; sum of scales at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 7, stride=2, padding=3)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.up1 = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        e1 = F.relu(self.first(x))
        e2 = F.relu(self.second(e1))
        d1 = F.relu_(self.up2(e2)).add_(e1)
        return self.head(F.relu6(self.up1(d1))) + F.avg_pool2d(x, 3, 1, 1)


class NonLocalUNet(nn.Module):
    """Self-attention over positions at the bottom, by matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.query = nn.Conv2d(8, 4, 1)
        self.key = nn.Conv2d(8, 4, 1)
        self.value = nn.Conv2d(8, 8, 1)
        self.gamma = nn.Parameter(torch.tensor(0.7))
        self.head = nn.Sequential(nn.ConvTranspose2d(8, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        n, c, h, w = x.shape
        query = self.query(x).flatten(2).transpose(1, 2)
        attention = torch.softmax(torch.matmul(query, self.key(x).flatten(2)) / 2.0, dim=-1)
        mixed = torch.bmm(self.value(x).flatten(2), attention.permute(0, 2, 1)).view(n, c, h, w)
        return self.head(self.gamma * mixed + x)


def conv_next_unet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=4), LayerNorm2d(8), ConvNeXtBlock(8), ConvNeXtBlock(8),
        nn.Conv2d(8, 16, 1), nn.PixelShuffle(2), nn.GELU(), nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(4, 1, 3, padding=1),
    )  # fmt: skip
