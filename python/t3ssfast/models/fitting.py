"""Find out what a network takes and answers, where its file does not say."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels.plan.run import accepted_sizes
from t3ssfast.models.adapters import AdaptedNetwork
from t3ssfast.models.foreign.refusal import quoted
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.metadata import TARGET_CLASS, ModelMetadata
from t3ssfast.models.probe import RunError, probe, run_probe

__all__ = ["FittedModel", "ModelReading", "fit_model"]

OUTPUTS = ("auto", "logits", "probabilities")
# Sides of slices must be multiples of 2 ** poolings: four poolings, five (the default of the most used
# library), six, seven.
SIDE_MULTIPLES = (16, 32, 64, 128)
RGB = 3
# Scales of inputs on which probabilities stay in [0, 1]. Normalised grey values are about 1; the logits of a
# hardly trained network leave the interval only for much larger ones.
SCALES = (0.0, 0.1, 1.0, 3.0, 10.0, 100.0, 1000.0)
SEEDS = 4


@dataclass(frozen=True)
class ModelReading:
    """What the user says about a model; None and "auto" are found out.

    `target_class` is the index or the name of a classifier's class of T3SS.
    """

    window_px: int | None = None
    output: str = "auto"
    target_class: int | str | None = None

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ConfigError(f"output is {self.output!r}; give {', '.join(OUTPUTS)}.")
        if self.window_px is not None and not 2 <= self.window_px <= 4096:
            raise ConfigError(f"window_px is {self.window_px}; give 2 to 4096 pixels.")


@dataclass(frozen=True)
class FittedModel:
    """A network that takes and answers what a detection expects, and what was found out about it."""

    module: nn.Module
    metadata: ModelMetadata
    assumed: bool  # whether the file has no metadata
    side_multiple: int = SIDE_MULTIPLES[0]  # of which the sides of a segmenter's slices must be multiples


def fit_model(
    module: nn.Module, metadata: ModelMetadata | None, model_kind: str, name: str, reading: ModelReading
) -> FittedModel:
    """Fit a network to its kind, and check it on a probe; `ModelError` if it cannot be used."""
    assumed = metadata is None
    if metadata is None:
        if model_kind == "verifier":
            raise ModelError(
                f"{name} holds no t3ssfast metadata, which a verifier needs; train one (t3ssfast train "
                "verifier)."
            )
        window = DEFAULT_WINDOW_PX if model_kind == "classifier" else None
        metadata = ModelMetadata(model_kind, window_px=window, code_version="unknown")
    if reading.window_px is not None and model_kind == "classifier":
        metadata = replace(metadata, window_px=reading.window_px)
    output = reading.output
    if output == "auto" and not assumed:
        output = metadata.output
    if model_kind == "segmenter":
        module, metadata, multiple = _fit_segmenter(module, metadata, name, output, is_assumed=assumed)
        return FittedModel(module, metadata, assumed, multiple)
    if model_kind == "classifier":
        module = _fit_classifier(module, metadata, name, is_assumed=assumed)
    outputs = probe(module, metadata, name)
    if output == "auto":
        output = "probabilities" if _answers_probabilities(module, metadata, name) else "logits"
    metadata = replace(metadata, output=output)
    if model_kind == "classifier":
        metadata = replace(metadata, classes=_classes(metadata, outputs.shape[1], reading, name))
    return FittedModel(module, metadata, assumed)


# -------------------------------------------------------------------------------------------- classifiers


def _fit_classifier(module: nn.Module, metadata: ModelMetadata, name: str, *, is_assumed: bool) -> nn.Module:
    """Repeat the grey channel for a network of RGB images; say which windows it takes, if not these."""
    side = metadata.window_px or DEFAULT_WINDOW_PX
    try:
        run_probe(module, _noise(2, 1, side, side), name)
    except RunError as error:
        adapted = AdaptedNetwork(module, repeat=RGB)
        if is_assumed and _takes(adapted, (2, 1, side, side), name):
            return adapted
        for network in (module, adapted) if is_assumed else (module,):
            if sizes := accepted_sizes(network, side, torch.device("cpu")):
                span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
                raise ModelError(
                    f"{name} does not take windows of {side} x {side} px, but of {span}; give "
                    f"window_px={sizes[0]} (--window {sizes[0]})."
                ) from error
    return module


def _classes(metadata: ModelMetadata, count: int, reading: ModelReading, name: str) -> tuple[str, ...]:
    """Return the names of the classes, the target's being "t3ss"."""
    # The last class is the T3SS; a single output stands for two classes.
    others = ("background",) if count <= 2 else tuple(f"class_{k}" for k in range(count - 1))
    classes = metadata.classes or (*others, TARGET_CLASS)
    target = reading.target_class
    if target is None:
        return classes
    index: int | None = None
    if isinstance(target, str) and target in classes:
        index = classes.index(target)
    elif isinstance(target, int) or target.isdecimal():
        index = int(target)
    if index is None or not 0 <= index < len(classes):
        listed = ", ".join(f"{k} ({quoted(c)[1:-1]})" for k, c in enumerate(classes[:8]))
        raise ModelError(f"{name} has no class {target!r}; its classes are {listed}.")
    plain = [f"class_{k}" if c == TARGET_CLASS else c for k, c in enumerate(classes)]
    plain[index] = TARGET_CLASS
    return tuple(plain)


# --------------------------------------------------------------------------------------------- segmenters


def _fit_segmenter(
    module: nn.Module, metadata: ModelMetadata, name: str, output: str, *, is_assumed: bool
) -> tuple[nn.Module, ModelMetadata, int]:
    """Return a segmenter that answers (N, 1, H, W), its metadata, and the multiple of its sides."""
    slices = metadata.slices
    for repeat in (1, RGB) if is_assumed else (1,):
        network = module if repeat == 1 else AdaptedNetwork(module, repeat)
        sides = [side for side in (64, 128) if _takes(network, (2, slices, side, side), name)]
        if sides:
            break
    else:
        probe(module, metadata, name)  # raises with the reason
        raise ModelError(f"{name} does not take slices (N, {slices}, H, W); give another segmenter.")
    outputs = run_probe(network, _noise(2, slices, sides[0], sides[0]), name)
    two_class = outputs.ndim == 4 and outputs.shape[1] == 2
    if output == "auto":
        plain = AdaptedNetwork(module, repeat)
        output = "probabilities" if _answers_probabilities(plain, metadata, name, sides[0]) else "logits"
    if two_class or outputs.ndim == 3 or repeat > 1:
        network = AdaptedNetwork(module, repeat, output if two_class else "")
    metadata = replace(metadata, output=output)
    probe(network, metadata, name, side=sides[0])
    for multiple in SIDE_MULTIPLES:
        if _takes(network, (1, slices, 3 * multiple, 5 * multiple), name):
            return network, metadata, multiple
    raise ModelError(
        f"{name} takes only slices of {sides[0]} x {sides[0]} px; save it with torch.jit.script, or trace it "
        "without fixed sizes."
    )


# ------------------------------------------------------------------------------------------------- outputs


def _answers_probabilities(module: nn.Module, metadata: ModelMetadata, name: str, side: int = 64) -> bool:
    """Whether all answers to inputs of several scales lie in [0, 1], which logits do not.

    Several classes need not sum to 1: each may have a sigmoid of its own.
    """
    side = metadata.window_px or side
    for scale, seed in itertools.product(SCALES, range(SEEDS)):
        outputs = run_probe(module, scale * _noise(2, metadata.slices, side, side, seed=seed), name)
        if not bool((outputs >= 0).all() and (outputs <= 1).all()):
            return False
    return True


def _takes(module: nn.Module, shape: tuple[int, ...], name: str) -> bool:
    try:
        outputs = run_probe(module, _noise(*shape), name)
    except RunError:
        return False
    return isinstance(outputs, Tensor) and (outputs.ndim == 2 or tuple(outputs.shape[-2:]) == shape[-2:])


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
