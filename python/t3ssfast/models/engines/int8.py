"""Segmenter inference in integers of 8 bits on processors with instructions for it."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from t3ssfast.models.unet import UNet

__all__ = ["Int8Engine", "has_int8_instructions"]

# Activations are held as uint8: 255 stands for this many standard deviations above the mean, both taken
# from the batch normalisation before the ReLU. On simulated tomograms most channels stay below 6, the highest
# at 17.
ACTIVATION_SIGMAS = 12.0
# The same for upsampled maps, whose standard deviations are computed as if their inputs were independent.
# They are about 1.5 to 2 times as large; most channels stay below 11, the highest at 27.
UPSAMPLED_SIGMAS = 24.0
# A channel's range is at least this, also where its weights are all 0.
MIN_RANGE = 1e-6
HIGHEST = 255
HIGHEST_WEIGHT = 127


@cache
def has_int8_instructions() -> bool:
    """Return whether PyTorch multiplies integers of 8 bits with AVX512-VNNI."""
    # Of PyTorch 2.12 and later.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    # PyTorch can be told to use an older instruction set.
    used = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    # Operators of PyTorch's compiler, which are not in every build.
    operators = ("qconv_prepack", "qconv2d_pointwise")
    has_operators = all(hasattr(torch.ops.onednn, name) for name in operators)
    return used and has_operators and bool(capabilities.get("avx512_vnni", False))


class Int8Engine:
    """Run a trained U-Net on a CPU with weights and activations of 8 bits.

    Each channel of activations and of weights has a scale of its own (Nagel et al. 2019, "Data-Free
    Quantization"). The scales follow from the batch normalisation alone, so the result depends on nothing but
    the image. The first layer, which sees the finest details, and the last are computed in float32.
    """

    def __init__(self, network: UNet) -> None:
        first, *others = (_Block.of(block) for block in network.down)
        self._first = _FirstConvolution(first)
        self._top = _second_convolution(first, first.second.highest)
        self._down = []
        for above, block in pairwise([first, *others]):
            above_highest, expected = above.second.highest, above.second.expected
            one = _Convolution(block.first, above_highest, block.first.highest, expected)
            self._down.append((one, _second_convolution(block, block.second.highest)))
        self._up = []
        below, skips = ([first, *others][-1]).second, [first, *others][-2::-1]
        for number, (upsample, merge, skip) in enumerate(zip(network.up, network.merge, skips, strict=True)):
            block, is_last = _Block.of(merge), number == len(skips) - 1
            self._up.append(_UpwardStep(upsample, below, skip.second, block, is_last=is_last))
            below = block.second
        self._head = _Head(network.head)

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> the network's output, float32."""
        image = self._top(self._first(tile))
        skips = [image]
        for first, second in self._down:
            image = second(first(_pool(image)))
            skips.append(image)
        skips.pop()
        for step in self._up:
            image = step(skips.pop(), image)
        return self._head(image)


class _Layer:
    """A 3 x 3 convolution with folded normalisation, and the highest activation of each channel behind it."""

    def __init__(self, convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
        folded = fuse_conv_bn_eval(convolution, normalisation)
        assert folded.bias is not None, "the shift of the normalisation"
        self.weight, self.bias = folded.weight.detach(), folded.bias.detach()
        mean, sigma = normalisation.bias.detach(), normalisation.weight.detach().abs()
        self.highest = (mean + ACTIVATION_SIGMAS * sigma).clamp_min(MIN_RANGE)
        self.mean, self.variance = _rectified(mean.double(), sigma.double().clamp_min(MIN_RANGE))
        # The mean activation, in which 255 stands for 1.
        self.expected = self.mean.float() / self.highest


class _Block:
    """The two layers of one level."""

    def __init__(self, first: _Layer, second: _Layer) -> None:
        self.first, self.second = first, second

    @classmethod
    def of(cls, block: nn.Module) -> _Block:
        assert isinstance(block, nn.Sequential), "made by UNet"
        convolutions = [layer for layer in block if isinstance(layer, nn.Conv2d)]
        normalisations = [layer for layer in block if isinstance(layer, nn.BatchNorm2d)]
        return cls(*map(_Layer, convolutions, normalisations))


def _rectified(mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the ReLU of Gaussian values."""
    ratio = mean / sigma
    positive = torch.special.ndtr(ratio)
    density = torch.exp(-0.5 * ratio * ratio) / math.sqrt(2 * math.pi)
    rectified = mean * positive + sigma * density
    return rectified, (mean * mean + sigma * sigma) * positive + mean * sigma * density - rectified**2


def _channels(values: Tensor, axis: int) -> Tensor:
    """Shape values of channels so that they multiply an axis of weights."""
    return values.reshape([-1 if n == axis else 1 for n in range(4)])


class _FirstConvolution:
    """The first layer in float32, with activations as uint8."""

    def __init__(self, block: _Block) -> None:
        layer = block.first
        scale = HIGHEST / layer.highest
        weight = layer.weight * _channels(scale, 0)
        # The conversion to integers rounds down.
        self._bias = layer.bias * scale + 0.5
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, [1, 1], [1, 1], [1, 1], 1)

    def __call__(self, image: Tensor) -> Tensor:
        channels_last = image.contiguous(memory_format=torch.channels_last)
        geometry = [1, 1], [1, 1], [1, 1], 1
        clamp = "hardtanh", [0.0, float(HIGHEST)], ""
        activations: Tensor = torch.ops.mkldnn._convolution_pointwise(
            channels_last, self._weight, self._bias, *geometry, *clamp
        )
        return activations.to(torch.uint8)


class _Head:
    """The last layer, a 1 x 1 convolution in float32.

    `Conv2d` itself rounds differently with other numbers of threads and of images.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        assert layer.bias is not None, "made by UNet"
        self._bias = layer.bias.detach()
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight.detach(), [0, 0], [1, 1], [1, 1], 1
        )

    def __call__(self, image: Tensor) -> Tensor:
        geometry = [0, 0], [1, 1], [1, 1], 1
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self._weight, self._bias, *geometry, "none", [], ""
        )
        return output


class _Quantised:
    """A convolution of uint8 activations with int8 weights; accumulates in int32, exactly."""

    def __init__(
        self, weight: Tensor, bias: Tensor, expected: Tensor, *, padding: int, activation: str
    ) -> None:
        """Take float weights (out, in, rows, columns) for activations in which 255 stands for 1.

        `expected` are the mean activations of the inputs. The mean error that rounding of the weights makes
        on them is subtracted.
        """
        self._scale = weight.abs().amax(dim=(1, 2, 3)).clamp_min(MIN_RANGE) / HIGHEST_WEIGHT
        quantised = torch.round(weight / _channels(self._scale, 0)).to(torch.int8)
        self._zero = torch.zeros(len(weight), dtype=torch.int64)
        error = quantised * _channels(self._scale, 0) - weight
        bias = bias - torch.einsum("oikl,i->o", error, expected)
        self._bias, self._padding, self._activation = bias.contiguous(), [padding, padding], activation
        self._weight = torch.ops.onednn.qconv_prepack(
            quantised, self._scale, 1 / HIGHEST, 0, [1, 1], self._padding, [1, 1], 1, None
        )

    def __call__(self, image: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *(image, 1 / HIGHEST, 0, self._weight, self._scale, self._zero, self._bias),
            *([1, 1], self._padding, [1, 1], 1),
            *(1 / HIGHEST if dtype == torch.uint8 else 1.0, 0, dtype),
            *(self._activation, [], ""),
        )
        return result


class _Convolution(_Quantised):
    """A 3 x 3 convolution with ReLU, from activations of one range per channel to those of another."""

    def __init__(
        self,
        layer: _Layer,
        from_highest: Tensor,
        to_highest: Tensor,
        expected: Tensor,
        *,
        padding: int = 1,
    ) -> None:
        weight = layer.weight * _channels(from_highest, 1) / _channels(to_highest, 0)
        super().__init__(weight, layer.bias / to_highest, expected, padding=padding, activation="relu")


def _second_convolution(block: _Block, to_highest: Tensor) -> _Convolution:
    return _Convolution(block.second, block.first.highest, to_highest, block.first.expected)


class _UpwardStep:
    """Upsampling, and the two convolutions of the result with the map of the way down.

    Upsampled maps may be negative. They are held with an offset per channel, whose part in the convolution
    behind them is constant and belongs to its bias. Around the maps is a border of what stands for 0.
    """

    def __init__(
        self, upsample: nn.Module, below: _Layer, skip: _Layer, block: _Block, *, is_last: bool
    ) -> None:
        assert isinstance(upsample, nn.ConvTranspose2d), "made by UNet"
        assert upsample.bias is not None, "made by UNet"
        weight, bias = upsample.weight.detach().double(), upsample.bias.detach().double()
        channels = len(bias)
        middle = torch.einsum("i,iokl->okl", below.mean, weight).mean(dim=(1, 2)) + bias
        sigma = torch.einsum("i,iokl->okl", below.variance, weight * weight).sqrt().amax(dim=(1, 2))
        lowest = (middle - UPSAMPLED_SIGMAS * sigma).clamp_max(0)
        span = ((middle + UPSAMPLED_SIGMAS * sigma).clamp_min(0) - lowest).clamp_min(MIN_RANGE)
        # A transposed convolution of 2 x 2 pixels without overlap is one of 1 x 1 with four times as many
        # outputs.
        square = weight * _channels(below.highest, 0) / _channels(span, 1)
        square = square.permute(2, 3, 1, 0).reshape(4 * channels, -1, 1, 1)
        offset = ((bias - lowest) / span).repeat(4)
        self._upsample = _Quantised(
            square.float(), offset.float(), below.expected, padding=0, activation="none"
        )
        expected = torch.cat([skip.expected, ((middle - lowest) / span).float()])
        lowest, span = lowest.float(), span.float()
        self._border = torch.round(-lowest / span * HIGHEST).to(torch.uint8)
        merged = block.first
        merged.bias = merged.bias + torch.einsum("oikl,i->o", merged.weight[:, -channels:], lowest)
        from_highest = torch.cat([skip.highest, span])
        self._first = _Convolution(merged, from_highest, merged.highest, expected, padding=0)
        self._dtype = torch.float32 if is_last else torch.uint8
        highest = torch.ones_like(block.second.highest) if is_last else block.second.highest
        self._second = _second_convolution(block, highest)

    def __call__(self, skip: Tensor, image: Tensor) -> Tensor:
        (count, channels, height, width), below = skip.shape, self._upsample(image).permute(0, 2, 3, 1)
        squares = below.reshape(count, height // 2, width // 2, 2, 2, -1).transpose(2, 3)
        padded = torch.empty((count, height + 2, width + 2, channels + len(self._border)), dtype=torch.uint8)
        for edge in (padded[:, 0], padded[:, -1], padded[:, :, 0], padded[:, :, -1]):
            edge[..., :channels] = 0
            edge[..., channels:] = self._border
        inside = padded[:, 1:-1, 1:-1]
        inside[..., :channels] = skip.permute(0, 2, 3, 1)
        inside[..., channels:].view(squares.shape).copy_(squares)
        return self._second(self._first(padded.permute(0, 3, 1, 2)), self._dtype)


def _pool(image: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 pixels; PyTorch's own is not made for integers in this layout."""
    rows = torch.maximum(image[:, :, ::2], image[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
