"""Honest models of other people by name, with inputs, in every form in which TorchScript saves them.

`MODELS` describes them, `build` makes one with seeded weights, `save_form` writes its file. `CASES` lists all
pairs of a name and a form.
"""

from __future__ import annotations

import importlib.util
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import honest_classifiers as nets
import honest_segmenters as segmenters
import honest_styles as styles
import honest_unets as unets
import torch
from honest_library_styles import NnUNet, SmpLike, monai_like
from honest_packages import colour_resnet, monai_model, nnunet_model, smp_model, torchvision_model
from torch import Tensor, nn

from t3ssfast.models import ModelMetadata
from t3ssfast.models.metadata import METADATA_NAME

FORMS = ("scripted", "traced", "frozen scripted", "frozen traced")


@dataclass(frozen=True)
class HonestModel:
    """One model.

    Parameters
    ----------
    make
        Builds the module with untrained weights.
    model_kind
        "classifier" or "segmenter".
    inputs
        Shapes of the inputs to compare answers on, at least two where the architecture allows. Traces are
        made with the first.
    forms
        The forms that TorchScript can make of it.
    output
        What the metadata say about the outputs.
    accepted
        Whether `load_model` takes outputs of this shape.
    requires
        Packages that it needs; they are not all in the test environment.
    """

    make: Callable[[], nn.Module]
    model_kind: str
    inputs: tuple[tuple[int, int, int, int], ...]
    forms: tuple[str, ...] = FORMS
    output: str = "logits"
    accepted: bool = True
    requires: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Required packages that are not installed."""
        return tuple(name for name in self.requires if importlib.util.find_spec(name) is None)

    def metadata(self, classes: int) -> ModelMetadata:
        """Metadata that fit the model, whose outputs have a number of channels."""
        if self.model_kind == "segmenter":
            return ModelMetadata("segmenter", slices=self.inputs[0][1], output=self.output)
        others = ("background",) if classes <= 2 else tuple(f"class_{k}" for k in range(classes - 1))
        return ModelMetadata("classifier", window_px=50, classes=(*others, "t3ss"), output=self.output)


WINDOWS = ((2, 1, 50, 50), (5, 1, 50, 50))
SLICES = ((2, 1, 64, 64), (1, 1, 48, 80))
TRACED = ("traced", "frozen traced")


def classifier(make: Callable[[], nn.Module], **fields: Any) -> HonestModel:
    return HonestModel(make, "classifier", **{"inputs": WINDOWS, **fields})


def segmenter(make: Callable[[], nn.Module], **fields: Any) -> HonestModel:
    return HonestModel(make, "segmenter", **{"inputs": SLICES, **fields})


TORCHVISION, SMP, MONAI, NNUNET = (
    ("torchvision",),
    ("torchvision", "timm", "segmentation_models_pytorch"),
    ("torchvision", "monai"),
    ("torchvision", "timm", "dynamic_network_architectures"),
)
NARROW = {"decoder_channels": (32, 16, 8, 8, 4)}
DEEP_SLICES = ((1, 1, 64, 64), (2, 1, 64, 96))

# ------------------------------------------------------------------------------------------------- all models

MODELS: dict[str, HonestModel] = {
    "lenet classic": classifier(nets.ClassicLeNet),
    "lenet one output": classifier(lambda: nets.ClassicLeNet(1)),
    "lenet tutorial": classifier(nets.TutorialLeNet),
    "lenet reshape, log_softmax": classifier(lambda: nets.ViewLeNet("reshape", "log_softmax")),
    "lenet view, softmax": classifier(lambda: nets.ViewLeNet("view", "softmax", 3), output="probabilities"),
    "lenet fixed view, torch softmax": classifier(
        lambda: nets.ViewLeNet("fixed", "torch softmax"), output="probabilities"
    ),
    "lenet flatten, sigmoid": classifier(
        lambda: nets.ViewLeNet("torch", "sigmoid", 1), output="probabilities"
    ),
    "lenet flatten method, sigmoid method": classifier(
        lambda: nets.ViewLeNet("method", "method sigmoid", 1), output="probabilities"
    ),
    "lenet unpacked shape": classifier(lambda: nets.ViewLeNet("unpacked", "logits")),
    "lenet len": classifier(lambda: nets.ViewLeNet("len", "logits", 3)),
    "lenet gelu": classifier(lambda: nets.RegularisedLeNet(nn.GELU(), nn.MaxPool2d(2))),
    "lenet leaky relu": classifier(lambda: nets.RegularisedLeNet(nn.LeakyReLU(0.1), nn.AvgPool2d(2))),
    "lenet tanh": classifier(
        lambda: nets.RegularisedLeNet(nn.Tanh(), nn.MaxPool2d((2, 2), stride=(2, 2)), 3)
    ),
    "lenet relu": classifier(lambda: nets.RegularisedLeNet(nn.ReLU(inplace=True), nn.LPPool2d(2, 2))),
    **{
        f"global pooling: {how}": classifier(lambda how=how: nets.GlobalPooling(how), inputs=inputs)
        for how, inputs in (
            ("mean list", WINDOWS),
            ("mean tuple", WINDOWS),
            ("mean twice", WINDOWS),
            ("mean keepdim", WINDOWS),
            ("functional", WINDOWS),
            ("module", ((2, 1, 50, 50), (3, 1, 64, 48))),
            ("squeeze", WINDOWS),
            ("max", WINDOWS),
            ("amax", WINDOWS),
            ("average of all", WINDOWS),
        )
    },
    "resnet": classifier(nets.SmallResNet),
    "mobilenet relu6": classifier(lambda: nets.mobile_net(nn.ReLU6)),
    "mobilenet hardswish": classifier(lambda: nets.mobile_net(nn.Hardswish)),
    "mobilenet silu": classifier(lambda: nets.mobile_net(nn.SiLU)),
    "convnext": classifier(nets.conv_next),
    "densenet": classifier(nets.DenseNet),
    "inception": classifier(nets.inception),
    "shufflenet": classifier(nets.shuffle_net),
    "max feature map": classifier(nets.MaxFeatureMap),
    "flags tanh": classifier(lambda: styles.Flags(normalise=True, head="tanh")),
    "flags leaky": classifier(lambda: styles.Flags(normalise=False, head="leaky")),
    "optional parts": classifier(lambda: styles.OptionalParts(complete=True)),
    "optional parts missing": classifier(lambda: styles.OptionalParts(complete=False)),
    "guards": classifier(styles.Guards),
    "inner tuples": classifier(styles.InnerTuples),
    "input statistics: buffers": classifier(lambda: styles.InputStatistics("buffers")),
    "input statistics: windows": classifier(lambda: styles.InputStatistics("windows")),
    "input statistics: clamped": classifier(lambda: styles.InputStatistics("clamped")),
    "input statistics: variance": classifier(lambda: styles.InputStatistics("variance")),
    "shared layers": classifier(styles.SharedLayers),
    "scalar arithmetic": classifier(styles.ScalarArithmetic),
    "casts": classifier(styles.Casts),
    "containers": classifier(styles.Containers),
    "final constants": classifier(styles.FinalConstants),
    "unused dictionary": classifier(lambda: styles.FinalConstants(dictionary=True)),
    "two outputs": classifier(styles.TwoOutputs, output="probabilities"),
    "unsqueezing": classifier(styles.Unsqueezing),
    "unet": segmenter(unets.PaddingUNet, inputs=(*SLICES, (1, 1, 53, 70))),
    "unet bilinear": segmenter(lambda: unets.PaddingUNet(bilinear=True), inputs=(*SLICES, (1, 1, 53, 70))),
    "unet sigmoid": segmenter(lambda: unets.PaddingUNet(end="sigmoid"), output="probabilities"),
    "unet rgb": segmenter(lambda: unets.PaddingUNet(3), inputs=((2, 3, 64, 64), (1, 3, 80, 48))),
    "unet two-class foreground": segmenter(
        lambda: unets.PaddingUNet(n_classes=2, end="foreground"), output="probabilities"
    ),
    "unet two-class channel": segmenter(
        lambda: unets.PaddingUNet(n_classes=2, end="one channel"), output="probabilities"
    ),
    "unet two-class difference": segmenter(lambda: unets.PaddingUNet(n_classes=2, end="difference")),
    "unet two-class softmax": segmenter(
        lambda: unets.PaddingUNet(n_classes=2, end="softmax"), output="probabilities", accepted=False
    ),
    "unet attention written out": segmenter(unets.AttentionUNet),
    "unet residual": segmenter(lambda: unets.AnyUNet(extra="residual")),
    "unet attention": segmenter(lambda: unets.AnyUNet(extra="attention", up="upsample")),
    "unet excite": segmenter(lambda: unets.AnyUNet(extra="excite")),
    **{
        f"unet of {depth} poolings": segmenter(
            lambda depth=depth: unets.AnyUNet(depth),
            inputs=((1, 1, 64, 64), (2, 1, 128, 64)),
        )
        for depth in (2, 3, 4, 5, 6)
    },
    **{
        f"unet up: {up}": segmenter(lambda up=up: unets.AnyUNet(up=up))
        for up in (
            "transposed 3",
            "transposed 4",
            "pixel shuffle",
            "upsample",
            "upsampling bilinear",
            "nearest scale",
            "nearest scales",
            "nearest size",
            "bilinear scale",
            "bilinear size",
            "bilinear corners",
            "bicubic",
        )
    },
    **{
        f"unet {norm} norm, {act}": segmenter(lambda norm=norm, act=act: unets.AnyUNet(1, norm=norm, act=act))
        for norm, act in (
            ("group", "silu"),
            ("instance", "leaky"),
            ("plain instance", "prelu"),
            ("tracking instance", "gelu tanh"),
            ("layer", "prelu of channels"),
            ("all", "elu"),
            ("batch", "mish"),
            ("batch", "hardswish"),
            ("none", "softplus"),
            ("batch", "celu"),
            ("none", "hardtanh"),
            ("none", "softsign"),
            ("batch", "logsigmoid"),
        )
    },
    **{
        f"unet {conv} convolutions": segmenter(lambda conv=conv: unets.AnyUNet(1, conv=conv))
        for conv in (
            "depthwise",
            "dilated",
            "grouped",
            "reflect",
            "replicate",
            "circular",
            "same",
            "pad module",
            "zero pad",
            "constant pad",
        )
    },
    **{
        f"unet {pool} pooling": segmenter(lambda pool=pool: unets.AnyUNet(pool=pool))
        for pool in ("strided", "average", "overlapping")
    },
    **{
        f"deep supervision: {how}": segmenter(lambda how=how: unets.DeepSupervision(how))
        for how in ("high", "average", "stack", "last")
    },
    "atrous": segmenter(segmenters.Atrous),
    "nested unet": segmenter(segmenters.NestedUNet),
    "pad and crop": segmenter(segmenters.PadAndCrop, inputs=((2, 1, 64, 64), (1, 1, 53, 70))),
    "denoiser": segmenter(segmenters.Denoiser),
    "linknet": segmenter(segmenters.LinkNet),
    "non-local unet": segmenter(segmenters.NonLocalUNet),
    "convnext unet": segmenter(segmenters.conv_next_unet),
    "nnunet style": segmenter(NnUNet),
    "monai style": segmenter(monai_like),
    "smp style": segmenter(SmpLike),
    "smp style sigmoid": segmenter(lambda: SmpLike(nn.Sigmoid()), output="probabilities"),
    "torchvision resnet18": classifier(lambda: torchvision_model("resnet18"), requires=TORCHVISION),
    "torchvision resnet18, colour": classifier(colour_resnet, requires=TORCHVISION),
    "torchvision mobilenet_v2": classifier(lambda: torchvision_model("mobilenet_v2"), requires=TORCHVISION),
    "torchvision mobilenet_v3": classifier(
        lambda: torchvision_model("mobilenet_v3_small"), requires=TORCHVISION
    ),
    "torchvision squeezenet": classifier(lambda: torchvision_model("squeezenet1_1"), requires=TORCHVISION),
    "torchvision shufflenet": classifier(
        lambda: torchvision_model("shufflenet_v2_x0_5"), requires=TORCHVISION
    ),
    "smp unet": segmenter(lambda: smp_model("Unet", "resnet18", **NARROW), inputs=DEEP_SLICES, requires=SMP),
    "smp unet efficientnet": segmenter(
        lambda: smp_model("Unet", "efficientnet-b0", **NARROW), inputs=DEEP_SLICES, requires=SMP
    ),
    "smp fpn": segmenter(lambda: smp_model("FPN", "resnet18"), inputs=DEEP_SLICES, requires=SMP),
    "smp unet++": segmenter(
        lambda: smp_model("UnetPlusPlus", "resnet18", **NARROW),
        inputs=DEEP_SLICES,
        forms=TRACED,
        requires=SMP,
    ),
    "monai unet": segmenter(lambda: monai_model("UNet"), requires=MONAI),
    "monai residual unet": segmenter(lambda: monai_model("UNet", num_res_units=2), requires=MONAI),
    "monai attention unet": segmenter(lambda: monai_model("AttentionUnet"), requires=MONAI),
    "nnunet plain": segmenter(lambda: nnunet_model("PlainConvUNet"), forms=TRACED, requires=NNUNET),
    "nnunet residual": segmenter(lambda: nnunet_model("ResidualEncoderUNet"), forms=TRACED, requires=NNUNET),
}

NAMES = list(MODELS)
CASES = [(name, form) for name, model in MODELS.items() for form in model.forms]


def build(name: str) -> tuple[nn.Module, list[Tensor], str]:
    """Make a model in evaluation mode, its inputs and its model kind; the name seeds all random numbers."""
    model = MODELS[name]
    seed = zlib.crc32(name.encode())
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        module = model.make().eval()
        with torch.no_grad():
            _vary_statistics(module)
            # PyTorch's initial weights let the signal fade, and an answer of nothing but biases shows little.
            # The deep networks of other packages would overflow instead.
            for layer in () if model.requires else module.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                    nn.init.kaiming_normal_(layer.weight)
    generator = torch.Generator().manual_seed(seed)
    return module, [torch.randn(shape, generator=generator) for shape in model.inputs], model.model_kind


def _vary_statistics(module: nn.Module) -> None:
    """Give normalisations weights and statistics unlike those of a fresh network."""
    for layer in module.modules():
        if getattr(layer, "running_mean", None) is not None:
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
        normalises = isinstance(
            layer,
            (
                nn.GroupNorm,
                nn.LayerNorm,
                nn.modules.batchnorm._BatchNorm,
                nn.modules.instancenorm._InstanceNorm,
            ),
        )
        if normalises and layer.weight is not None:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)


def make_form(module: nn.Module, example: Tensor, form: str) -> torch.jit.ScriptModule:
    """Compile a module into one of `FORMS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form.endswith("scripted"):
            compiled: torch.jit.ScriptModule = torch.jit.script(module)
        elif form.endswith("traced"):
            compiled = torch.jit.trace(module, example, check_trace=False)
        else:
            raise ValueError(f"form is {form!r}; give one of {FORMS}")
        return torch.jit.freeze(compiled) if form.startswith("frozen") else compiled


def save_form(name: str, form: str, path: Path, *, with_metadata: bool = True) -> list[Tensor]:
    """Write a model in one of its forms to a file; returns inputs to compare answers on."""
    module, inputs, _ = build(name)
    compiled = make_form(module, inputs[0], form)
    extra = {}
    if with_metadata:
        with torch.inference_mode():
            classes = module(inputs[0]).shape[1]
        extra[METADATA_NAME] = MODELS[name].metadata(classes).to_json()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(compiled, path, _extra_files=extra)
    return inputs
