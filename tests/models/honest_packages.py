"""Models of torchvision, segmentation_models_pytorch, MONAI and nnU-Net, for one channel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """A model of torchvision for one channel and two classes."""
    import_torchvision()
    from torchvision import models

    model: nn.Module = getattr(models, name)(weights=None, num_classes=2, **options)
    return replace_first_convolution(model)


def import_torchvision() -> None:
    """Import torchvision, also where its operators do not load.

    PyPI's wheels are linked to CUDA. Without it, the import fails because two operators do not exist; the
    networks use neither.
    """
    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


# Definitions of operators end with the object that made them.
_KEPT: list[torch.library.Library] = []


def replace_first_convolution(model: nn.Module) -> nn.Module:
    """Make a network for colour images one for grey ones."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                size = (child.kernel_size, child.stride, child.padding)
                setattr(module, name, nn.Conv2d(1, child.out_channels, *size, bias=child.bias is not None))
                return model
    raise ValueError("the model has no convolution")


class Colour(nn.Module):
    """A network for colour images, given grey ones."""

    def __init__(self, net: nn.Module, *, repeat: bool) -> None:
        super().__init__()
        self.net = net
        self.repeat = repeat

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat(1, 3, 1, 1) if self.repeat else torch.cat([x, x, x], dim=1)
        return self.net(x)


def colour_resnet() -> nn.Module:
    import_torchvision()
    from torchvision.models import resnet18

    return Colour(resnet18(weights=None, num_classes=2), repeat=True)


def smp_model(name: str, encoder: str, **options: Any) -> nn.Module:
    import_torchvision()
    import segmentation_models_pytorch as smp

    make: Callable[..., nn.Module] = getattr(smp, name)
    return make(encoder, encoder_weights=None, in_channels=1, **options)


def monai_model(name: str, **options: Any) -> nn.Module:
    import_torchvision()
    from monai.networks import nets as monai_nets

    make: Callable[..., nn.Module] = getattr(monai_nets, name)
    return make(2, 1, 1, (4, 8, 12), (2, 2), **options)


def nnunet_model(name: str) -> nn.Module:
    import_torchvision()
    from dynamic_network_architectures.architectures import unet

    make: Callable[..., nn.Module] = getattr(unet, name)
    return make(
        1, 3, (4, 8, 16), nn.Conv2d, 3, (1, 2, 2), 2, 1, 2, True,
        nn.InstanceNorm2d, {"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
