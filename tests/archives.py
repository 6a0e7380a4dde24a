"""Model files for tests of the model gate: benign networks of many kinds, and tools to modify archives."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from t3ssfast.models import LeNet, ModelMetadata, UNet, save_model
from t3ssfast.models.metadata import METADATA_NAME
from t3ssfast.models.torchscript import quiet_torchscript

CODE = "archive/code/__torch__/t3ssfast/models/lenet.py"
DATA = "archive/data.pkl"
CONSTANTS = "archive/constants.pkl"
# A line of the classifier's forward, before which tests insert statements.
LINE = "    classifier = self.classifier\n"


def classifier_file(path: Path) -> Path:
    """Save a small classifier with metadata."""
    torch.manual_seed(0)
    metadata = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    save_model(LeNet((2, 3), (8, 6)), path, metadata)
    # As other people's files: without the name of a network that would be used instead of the code.
    members = read_archive(path)
    (name,) = (name for name in members if name.endswith(METADATA_NAME))
    path.write_bytes(write_archive(members | {name: metadata.to_json().encode()}))
    return path


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the members of an archive by name."""
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """Build an archive with correct checksums from any members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


# ------------------------------------------------------------------------------------------- benign networks


class FunctionalUNet(nn.Module):
    """A small U-Net built from functions, with padding to the input size and a check of its input."""

    def __init__(self, mode: str = "bilinear") -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, dilation=1, bias=False)
        self.up = nn.Conv2d(12, 1, 1)
        self.mode = mode
        self.sizes = [2, 2]
        self.names = ["a", "b"]
        self.register_buffer("scale", torch.full((1, 6, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:
            raise ValueError(f"four axes are needed, not {x.dim()}")
        _, _, height, width = x.shape
        skip = F.relu(self.norm(self.down(x))) * self.scale
        deep = F.silu(self.deep(F.max_pool2d(skip, self.sizes)))
        if self.mode == "bilinear":
            deep = F.interpolate(deep, size=(height, width), mode="bilinear", align_corners=False)
        else:
            deep = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        pad_y, pad_x = height - deep.size(2), width - deep.size(3)
        deep = F.pad(deep, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))
        return self.up(torch.cat([skip, deep], dim=1))


class ChannelAttention(nn.Module):
    """Residual blocks with channel attention and several normalisations and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"), nn.InstanceNorm2d(8))
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.GELU(), nn.Conv2d(2, 8, 1), nn.Sigmoid()
        )
        self.mix = nn.ModuleDict({"a": nn.Conv2d(8, 8, 3, padding=1, groups=8), "b": nn.Conv2d(8, 8, 1)})
        self.act = nn.ModuleList([nn.PReLU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.ELU()])
        self.head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.PixelShuffle(2), nn.AvgPool2d(2), nn.Dropout2d(0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for act in self.act:
            x = x + act(self.mix["b"](self.mix["a"](x))) * self.weigh(x)
        return self.head(x)


class NormalisingClassifier(nn.Module):
    """A classifier that normalises each window and returns probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=2), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(3, 2, ceil_mode=True)
        )
        self.layers = nn.Sequential(nn.Linear(4 * 11 * 11, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(
            (x - x.mean(dim=[2, 3], keepdim=True)) / x.std(dim=[2, 3], keepdim=True).clamp(min=0.1)
        )
        x = x.view(x.shape[0], -1)
        return torch.softmax(self.layers(x), dim=1)


def upsampling(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        layer,
        nn.Conv2d(4, 1, 1),
    )


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def scripted(make: Callable[[], nn.Module]) -> nn.Module:
    return torch.jit.script(_seeded(make))


def traced(make: Callable[[], nn.Module], side: int = 64) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(_seeded(make), torch.zeros(2, 1, side, side))


def frozen(make: Callable[[], nn.Module]) -> nn.Module:
    return torch.jit.freeze(scripted(make))


def small_lenet() -> nn.Module:
    return LeNet((2, 3), (8, 6))


def small_unet() -> nn.Module:
    return UNet(2, 4)


def transposed() -> nn.Module:
    return upsampling(nn.ConvTranspose2d(4, 4, 2, stride=2))


BENIGN: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "lenet scripted": ("classifier", lambda: scripted(small_lenet)),
    "lenet traced": ("classifier", lambda: traced(small_lenet, 50)),
    "lenet frozen": ("classifier", lambda: frozen(small_lenet)),
    "flat scripted": ("classifier", lambda: scripted(NormalisingClassifier)),
    "flat traced": ("classifier", lambda: traced(NormalisingClassifier, 50)),
    "flat frozen": ("classifier", lambda: frozen(NormalisingClassifier)),
    "unet scripted": ("segmenter", lambda: scripted(small_unet)),
    "unet traced": ("segmenter", lambda: traced(small_unet)),
    "unet frozen": ("segmenter", lambda: frozen(small_unet)),
    "functional bilinear": ("segmenter", lambda: scripted(FunctionalUNet)),
    "functional nearest": ("segmenter", lambda: scripted(lambda: FunctionalUNet("nearest"))),
    "functional traced": ("segmenter", lambda: traced(FunctionalUNet)),
    "functional frozen": ("segmenter", lambda: frozen(FunctionalUNet)),
    "attention scripted": ("segmenter", lambda: scripted(ChannelAttention)),
    "attention traced": ("segmenter", lambda: traced(ChannelAttention)),
    "attention frozen": ("segmenter", lambda: frozen(ChannelAttention)),
    "upsample nearest": ("segmenter", lambda: scripted(lambda: upsampling(nn.Upsample(scale_factor=2)))),
    "upsample bilinear": (
        "segmenter",
        lambda: scripted(
            lambda: upsampling(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
        ),
    ),
    "upsample bicubic": (
        "segmenter",
        lambda: traced(lambda: upsampling(nn.Upsample(scale_factor=2, mode="bicubic"))),
    ),
    "upsample transposed": ("segmenter", lambda: scripted(transposed)),
}


def save_benign(name: str, path: Path, *, with_metadata: bool) -> str:
    """Save one of `BENIGN` to a file and return its model kind."""
    model_kind, make = BENIGN[name]
    with quiet_torchscript():
        module = make()
        if with_metadata:
            classes = {"flat": ("a", "b", "t3ss"), "lenet": ("background", "t3ss")}.get(name.split()[0], ())
            window = 50 if model_kind == "classifier" else None
            output = "probabilities" if name.startswith("flat") else "logits"
            metadata = ModelMetadata(model_kind, window_px=window, classes=classes, output=output)
            save_model(module, path, metadata)
        else:
            torch.jit.save(module, path)
    return model_kind
