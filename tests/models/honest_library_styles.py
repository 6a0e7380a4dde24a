"""Small segmenters in the coding styles of nnU-Net, MONAI and segmentation_models_pytorch."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from honest_classifiers import BasicBlock
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------------- nnU-Net


class ConvDropoutNormReLU(nn.Module):
    """nnU-Net's block, whose parts are attributes and members of a sequence at once."""

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = (stride, stride)
        self.conv = nn.Conv2d(width, out, (3, 3), self.stride, padding=[1, 1], dilation=1, bias=True)
        self.norm = nn.InstanceNorm2d(out, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class PlainEncoder(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        stages = []
        previous = 1
        for k, width in enumerate(widths):
            stages.append(
                nn.Sequential(
                    ConvDropoutNormReLU(previous, width, 2 if k else 1), ConvDropoutNormReLU(width, width)
                )
            )
            previous = width
        self.stages = nn.Sequential(*stages)
        self.return_skips = True

    def forward(self, x: Tensor) -> list[Tensor]:
        ret = []
        for s in self.stages:
            x = s(x)
            ret.append(x)
        return ret


class UNetDecoder(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        below, skips = widths[1:][::-1], widths[:-1][::-1]
        self.deep_supervision = False
        self.transpconvs = nn.ModuleList(
            [nn.ConvTranspose2d(a, b, 2, 2) for a, b in zip(below, skips, strict=True)]
        )
        self.stages = nn.ModuleList([ConvDropoutNormReLU(2 * b, b) for b in skips])
        self.seg_layers = nn.ModuleList([nn.Conv2d(b, 1, 1, 1, 0, bias=True) for b in skips])

    def forward(self, skips: list[Tensor]) -> Tensor:
        lres_input = skips[-1]
        seg_outputs = []
        for s, (transpconv, stage, seg) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers)):  # noqa: B905
            x = transpconv(lres_input)
            x = torch.cat((x, skips[-(s + 2)]), 1)
            x = stage(x)
            seg_outputs.append(seg(x))
            lres_input = x
        seg_outputs = seg_outputs[::-1]
        return seg_outputs[0]


class NnUNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (4, 8, 16, 16)) -> None:
        super().__init__()
        self.encoder = PlainEncoder(widths)
        self.decoder = UNetDecoder(widths)

    def forward(self, x: Tensor) -> Tensor:
        skips = self.encoder(x)
        return self.decoder(skips)


# ------------------------------------------------------------------------------------------------------ MONAI


class SkipConnection(nn.Module):
    """MONAI's skip connection around a submodule."""

    def __init__(self, submodule: nn.Module, dim: int = 1, mode: str = "cat") -> None:
        super().__init__()
        self.submodule = submodule
        self.dim = dim
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        y = self.submodule(x)
        if self.mode == "cat":
            return torch.cat([x, y], dim=self.dim)
        if self.mode == "add":
            return torch.add(x, y)
        if self.mode == "mul":
            return torch.mul(x, y)
        raise NotImplementedError(f"Unsupported mode {self.mode}.")


def adn(width: int) -> nn.Sequential:
    """MONAI's activation, dropout and normalisation."""
    return nn.Sequential(OrderedDict(N=nn.InstanceNorm2d(width), D=nn.Dropout(0.1), A=nn.PReLU()))


class ResidualUnit(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for k in range(2):
            unit = nn.Sequential()
            unit.add_module("conv", nn.Conv2d(width if k == 0 else out, out, 3, stride if k == 0 else 1, 1))
            unit.add_module("adn", adn(out))
            self.conv.add_module(f"unit{k}", unit)
        self.residual = nn.Conv2d(width, out, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        res: Tensor = self.residual(x)  # create the additive residual from x
        cx: Tensor = self.conv(x)  # apply x to sequence of operations
        return cx + res  # add the residual to the output


def monai_like() -> nn.Sequential:
    """MONAI's U-Net: nested skip connections, built from the inside out."""

    def level(width: int, out: int, channels: list[int], top: bool) -> nn.Sequential:
        here, *deeper = channels
        below = level(here, here, deeper, False) if len(deeper) > 1 else ResidualUnit(here, deeper[0], 1)
        wide = here + (here if len(deeper) > 1 else deeper[0])
        up = nn.Sequential(nn.ConvTranspose2d(wide, out, 3, stride=2, padding=1, output_padding=1))
        if not top:
            up.append(adn(out))
        return nn.Sequential(ResidualUnit(width, here, 2), SkipConnection(below), up)

    return level(1, 1, [4, 8, 12], True)


# -------------------------------------------------------------------------------- segmentation_models_pytorch


class Conv2dReLU(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 3, stride=1, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class SCSEModule(nn.Module):
    """Attention over channels and over positions."""

    def __init__(self, in_channels: int, reduction: int = 2) -> None:
        super().__init__()
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, in_channels // reduction, 1),
            nn.ReLU(inplace=True), nn.Conv2d(in_channels // reduction, in_channels, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.sSE = nn.Sequential(nn.Conv2d(in_channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.cSE(x) + x * self.sSE(x)


class DecoderBlock(nn.Module):
    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.interpolation_mode = "nearest"
        self.conv1 = Conv2dReLU(in_channels + skip_channels, out_channels)
        self.attention1 = SCSEModule(in_channels + skip_channels)
        self.conv2 = Conv2dReLU(out_channels, out_channels)
        self.attention2 = SCSEModule(out_channels)

    def forward(self, feature_map: Tensor, height: int, width: int, skip: Tensor | None = None) -> Tensor:
        feature_map = F.interpolate(feature_map, size=(height, width), mode=self.interpolation_mode)
        if skip is not None:
            feature_map = torch.cat([feature_map, skip], dim=1)
            feature_map = self.attention1(feature_map)
        feature_map = self.conv1(feature_map)
        feature_map = self.conv2(feature_map)
        feature_map = self.attention2(feature_map)
        return feature_map


class ResNetEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        down = nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12))
        self.layer2 = nn.Sequential(BasicBlock(8, 12, 2, down), BasicBlock(12, 12))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x]
        x = self.relu(self.bn1(self.conv1(x)))
        features.append(x)
        x = self.layer1(self.maxpool(x))
        features.append(x)
        x = self.layer2(x)
        features.append(x)
        return features


class UnetDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.center = nn.Identity()
        channels = zip((12, 8, 8), (8, 8, 0), (8, 8, 4), strict=True)
        self.blocks = nn.ModuleList([DecoderBlock(a, b, c) for a, b, c in channels])

    def forward(self, features: list[Tensor]) -> Tensor:
        spatial_shapes = [feature.shape[2:] for feature in features]
        spatial_shapes = spatial_shapes[::-1]
        features = features[1:]  # remove first skip with same spatial resolution
        features = features[::-1]  # reverse channels to start from head of encoder
        head = features[0]
        skip_connections = features[1:]
        x = self.center(head)
        for i, decoder_block in enumerate(self.blocks):
            height, width = spatial_shapes[i + 1]
            skip_connection = skip_connections[i] if i < len(skip_connections) else None
            x = decoder_block(x, height, width, skip=skip_connection)
        return x


class SmpLike(nn.Module):
    """A U-Net over an encoder of another task, with a check of the input's size."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.requires_divisible_input_shape = True
        self.encoder = ResNetEncoder()
        self.decoder = UnetDecoder()
        upsampling, act = nn.Identity(), nn.Identity() if activation is None else activation
        self.segmentation_head = nn.Sequential(nn.Conv2d(4, 1, 3, padding=1), upsampling, act)

    def check_input_shape(self, x: Tensor) -> None:
        h, w = x.shape[-2:]
        if h % 8 != 0 or w % 8 != 0:
            new_h = (h // 8 + 1) * 8 if h % 8 != 0 else h
            new_w = (w // 8 + 1) * 8 if w % 8 != 0 else w
            raise RuntimeError(f"Wrong input shape height={h}, width={w}. Expected ({new_h}, {new_w}).")

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and self.requires_divisible_input_shape:
            self.check_input_shape(x)
        features = self.encoder(x)
        decoder_output = self.decoder(features)
        masks = self.segmentation_head(decoder_output)
        return masks
