"""U-Nets as other people write them.

Each maps (N, 1, H, W) or (N, 3, H, W) to (N, 1, H, W), except those named two-class or deep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from honest_classifiers import LayerNorm2d, SqueezeExcitation
from torch import Tensor, nn

# --------------------------------------------------------------- the U-Net of most tutorials and repositories


class DoubleConv(nn.Module):
    """(convolution => [BN] => ReLU) * 2"""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        if not mid_channels:
            mid_channels = out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Up(nn.Module):
    """Upscaling, padding to the size of the skip, then double convolution."""

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool = True) -> None:
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        diffY = x2.size()[2] - x1.size()[2]
        diffX = x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diffX // 2, diffX - diffX // 2, diffY // 2, diffY - diffY // 2])
        x = torch.cat([x2, x1], dim=1)
        return self.conv(x)


class PaddingUNet(nn.Module):
    def __init__(
        self, n_channels: int = 1, n_classes: int = 1, bilinear: bool = False, end: str = ""
    ) -> None:
        super().__init__()
        self.bilinear = bilinear
        self.end = end
        factor = 2 if bilinear else 1
        self.inc = DoubleConv(n_channels, 4)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4, 8))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16 // factor))
        self.up1 = Up(16, 8 // factor, bilinear)
        self.up2 = Up(8, 4, bilinear)
        self.outc = nn.Conv2d(4, n_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.up1(x3, x2)
        x = self.up2(x, x1)
        logits = self.outc(x)
        if self.end == "foreground":
            return torch.softmax(logits, dim=1)[:, 1:]
        if self.end == "one channel":
            return F.softmax(logits, dim=1)[:, 1].unsqueeze(1)
        if self.end == "difference":
            return logits[:, 1:2] - logits[:, 0:1]
        if self.end == "softmax":
            return F.softmax(logits, dim=1)
        if self.end == "sigmoid":
            return torch.sigmoid(logits)
        return logits


# ------------------------------------------------------------------------- a U-Net with interchangeable parts


def norm_layer(kind: str, width: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(num_groups=2, num_channels=width)
    if kind == "instance":
        return nn.InstanceNorm2d(width, affine=True)
    if kind == "plain instance":
        return nn.InstanceNorm2d(width)
    if kind == "tracking instance":
        return nn.InstanceNorm2d(width, affine=True, track_running_stats=True)
    if kind == "layer":
        return LayerNorm2d(width)
    if kind == "all":
        return nn.GroupNorm(1, width)
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(width)


def activation_layer(kind: str, width: int) -> nn.Module:
    layers: dict[str, nn.Module] = {
        "prelu": nn.PReLU(), "prelu of channels": nn.PReLU(width), "silu": nn.SiLU(), "elu": nn.ELU(0.7),
        "mish": nn.Mish(), "hardswish": nn.Hardswish(inplace=True), "leaky": nn.LeakyReLU(0.01, inplace=True),
        "gelu tanh": nn.GELU(approximate="tanh"), "softplus": nn.Softplus(beta=2), "celu": nn.CELU(0.5),
        "hardtanh": nn.Hardtanh(-2.0, 2.0), "softsign": nn.Softsign(), "logsigmoid": nn.LogSigmoid(),
    }  # fmt: skip
    return layers.get(kind, nn.ReLU(inplace=True))


def conv_layer(kind: str, width: int, out: int) -> nn.Module:
    if kind == "depthwise":
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, out, 1))
    if kind == "dilated":
        return nn.Conv2d(width, out, 3, padding=2, dilation=2)
    if kind == "grouped":
        return nn.Conv2d(width, out, 3, padding=1, groups=2 if width % 2 == 0 else 1)
    if kind in ("reflect", "replicate", "circular"):
        return nn.Conv2d(width, out, 3, padding=1, padding_mode=kind)
    if kind == "pad module":
        return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(width, out, 3))
    if kind == "zero pad":
        return nn.Sequential(nn.ZeroPad2d((1, 1, 1, 1)), nn.Conv2d(width, out, 3))
    if kind == "constant pad":
        return nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.ReplicationPad2d(1), nn.Conv2d(width, out, 5))
    if kind == "same":
        return nn.Conv2d(width, out, (3, 5), padding="same")
    return nn.Conv2d(width, out, 3, padding=1)


class Block(nn.Module):
    """One or two convolutions with normalisation and activation; optionally residual or with attention."""

    def __init__(self, width: int, out: int, conv: str, norm: str, act: str, extra: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_layer(conv, width, out), norm_layer(norm, out), activation_layer(act, out),
            conv_layer(conv, out, out), norm_layer(norm, out),
        )  # fmt: skip
        self.residual = extra == "residual"
        self.skip = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        self.excite = SqueezeExcitation(out, 2) if extra == "excite" else nn.Identity()
        self.drop = nn.Dropout2d(0.1)
        self.act = activation_layer(act, out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.excite(self.body(x))
        if self.residual:
            y = y + self.skip(x)
        return self.drop(self.act(y))


class AttentionGate(nn.Module):
    """Weigh the skip by what the decoder holds there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4))
        self.W_x = nn.Sequential(nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4))
        self.psi = nn.Sequential(nn.Conv2d(4, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        psi = self.psi(self.relu(self.W_g(g) + self.W_x(x)))
        return x * psi


class Upsampling(nn.Module):
    """Double the size and halve the channels in one of many ways."""

    def __init__(self, how: str, width: int, out: int) -> None:
        super().__init__()
        self.how = how
        makes: dict[str, nn.Module] = {
            "transposed": nn.ConvTranspose2d(width, out, 2, stride=2),
            "transposed 3": nn.ConvTranspose2d(
                width, out, 3, stride=2, padding=1, output_padding=1, bias=False
            ),
            "transposed 4": nn.ConvTranspose2d(width, out, 4, stride=2, padding=1),
            "pixel shuffle": nn.Sequential(nn.Conv2d(width, 4 * out, 1), nn.PixelShuffle(2)),
            "upsample": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, out, 3, padding=1)),
            "upsampling bilinear": nn.Sequential(
                nn.UpsamplingBilinear2d(scale_factor=2), nn.Conv2d(width, out, 1)
            ),
        }
        self.layer = makes.get(how, nn.Conv2d(width, out, 1))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.how == "nearest scale":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.how == "nearest scales":
            x = F.interpolate(x, scale_factor=(2.0, 2.0), mode="nearest-exact")
        elif self.how == "bilinear scale":
            x = F.interpolate(
                x, scale_factor=2.0, mode="bilinear", align_corners=False, recompute_scale_factor=True
            )
        elif self.how == "bilinear size":
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
        elif self.how == "bilinear corners":
            x = F.interpolate(x, size=skip.size()[-2:], mode="bilinear", align_corners=True)
        elif self.how == "nearest size":
            x = F.interpolate(x, size=(skip.size(2), skip.size(3)))
        elif self.how == "bicubic":
            x = F.interpolate(x, skip.shape[-2:], mode="bicubic", align_corners=False)
        return self.layer(x)


class AnyUNet(nn.Module):
    """A U-Net of any depth, in a loop over lists of modules."""

    def __init__(
        self,
        depth: int = 2,
        *,
        up: str = "transposed",
        conv: str = "plain",
        norm: str = "batch",
        act: str = "relu",
        extra: str = "",
        pool: str = "max",
        channels: int = 1,
        classes: int = 1,
        base: int = 4,
    ) -> None:
        super().__init__()
        widths = [base * min(2**level, 4) for level in range(depth + 1)]
        self.pool_name = pool
        self.attention = extra == "attention"
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        previous = channels
        for width in widths[:-1]:
            self.encoders.append(Block(previous, width, conv, norm, act, extra))
            if pool == "strided":
                self.downs.append(nn.Conv2d(width, width, 2, stride=2))
            elif pool == "average":
                self.downs.append(nn.AvgPool2d(2, count_include_pad=False))
            elif pool == "overlapping":
                self.downs.append(nn.MaxPool2d(3, stride=2, padding=1))
            else:
                self.downs.append(nn.MaxPool2d(2))
            previous = width
        self.bottleneck = Block(previous, widths[-1], conv, norm, act, extra)
        self.ups = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for low, high in zip(widths[:-1][::-1], widths[1:][::-1], strict=True):
            self.ups.append(Upsampling(up, high, low))
            self.gates.append(AttentionGate(low) if self.attention else nn.Identity())
            self.decoders.append(Block(2 * low, low, conv, norm, act, extra))
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs):  # noqa: B905 - TorchScript has no strict
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.bottleneck(x)
        for k, (up, decoder) in enumerate(zip(self.ups, self.decoders)):  # noqa: B905
            skip = skips[-1 - k]
            x = up(x, skip)
            x = decoder(torch.cat((skip, x), dim=1))
        return self.head(x)


class AttentionUNet(nn.Module):
    """Attention gates, with every level written out."""

    def __init__(self) -> None:
        super().__init__()
        self.Maxpool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.Conv1 = DoubleConv(1, 4)
        self.Conv2 = DoubleConv(4, 8)
        self.Conv3 = DoubleConv(8, 16)
        self.Up3 = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.Att3 = AttentionGate(8)
        self.Up_conv3 = DoubleConv(16, 8)
        self.Up2 = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU()
        )
        self.Att2 = AttentionGate(4)
        self.Up_conv2 = DoubleConv(8, 4)
        self.Conv_1x1 = nn.Conv2d(4, 1, kernel_size=1, stride=1, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.Conv1(x)
        x2 = self.Conv2(self.Maxpool(x1))
        x3 = self.Conv3(self.Maxpool(x2))
        d3 = self.Up3(x3)
        d3 = self.Up_conv3(torch.cat((self.Att3(g=d3, x=x2), d3), dim=1))
        d2 = self.Up2(d3)
        d2 = self.Up_conv2(torch.cat((self.Att2(d2, x1), d2), dim=1))
        return self.Conv_1x1(d2)


class DeepSupervision(nn.Module):
    """Heads at every scale, of which evaluation uses the last, or their average."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.down = DoubleConv(1, 4)
        self.deep = DoubleConv(4, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.merge = DoubleConv(8, 4)
        self.heads = nn.ModuleList([nn.Conv2d(8, 1, 1), nn.Conv2d(4, 1, 1)])

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        deep = self.deep(F.max_pool2d(skip, 2))
        low = F.interpolate(self.heads[0](deep), size=x.shape[2:], mode="bilinear", align_corners=False)
        high = self.heads[1](self.merge(torch.cat([skip, self.up(deep)], 1)))
        if self.training:
            return torch.cat([low, high], 1)
        if self.how == "average":
            return (low + high) / 2
        if self.how == "stack":
            return torch.stack([low, high]).mean(0)
        if self.how == "last":
            return [low, high][-1]
        return high
