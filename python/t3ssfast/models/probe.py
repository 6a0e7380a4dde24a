"""Checks of a loaded model on a small input."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import torch
from torch import Tensor, nn

from t3ssfast.errors import ModelError
from t3ssfast.models.axialnet import AZIMUTHS
from t3ssfast.models.foreign import Refusal
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["RunError", "probe", "run_probe"]

# Multiple of 2**5, so that U-Nets of up to five poolings accept it.
SEGMENTER_SIDE = 64
# The bundled models take milliseconds for two inputs; at a minute, a tomogram would take years.
TIMEOUT_SECONDS = 60.0
# Relative difference allowed between an input alone and in a batch. Rounding is far below it; a network that
# normalises over its batch is far above it.
BATCH_TOLERANCE = 1e-2


class RunError(Exception):
    """The network raised an error other than running out of memory."""


def probe(module: nn.Module, metadata: ModelMetadata, name: str, *, side: int = SEGMENTER_SIDE) -> Tensor:
    """Run a model on a small deterministic input, check its outputs, and return them.

    ModelError: the model does not accept the input or takes too long, or its outputs have the wrong shape,
    are not finite, are random, or depend on the rest of the batch.
    """
    segmenter_side, side = side, metadata.window_px or DEFAULT_WINDOW_PX
    shape = (metadata.slices, side, side)
    inputs = f"windows (M, 1, {side}, {side})"
    classes = len(metadata.classes)
    output_axes = f"(M, {classes or 'classes'})"
    if metadata.model_kind == "segmenter":
        shape = (metadata.slices, segmenter_side, segmenter_side)
        inputs, output_axes = f"slices (N, {metadata.slices}, H, W)", "(N, 1, H, W)"
    elif metadata.model_kind == "verifier":
        shape = (AZIMUTHS, side, side // 2)
        inputs = f"half-planes (M, {AZIMUTHS}, {side}, {side // 2})"
    # A batch of two reveals a model that drops or mixes the batch axis.
    batch = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        outputs = run_probe(module, batch, name)
    except RunError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(
            f"{name} is not a {metadata.model_kind}: it does not take {inputs} ({lines[-1].strip()}); give a "
            f"model that maps them to {output_axes}."
        ) from error
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if metadata.model_kind == "segmenter":
        valid = found == (2, 1, segmenter_side, segmenter_side)
    else:
        # One output can stand for two classes.
        allowed = (1, 2) if classes == 2 else (classes,)
        valid = isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[0] == 2
        valid = valid and outputs.shape[1] >= 1 and (classes == 0 or outputs.shape[1] in allowed)
    if not valid or not outputs.is_floating_point():
        raise ModelError(
            f"{name} is not a {metadata.model_kind}: for {inputs} its output is {found}; give a model whose "
            f"output is {output_axes} floating-point numbers."
        )
    if not torch.isfinite(outputs).all():
        raise ModelError(f"{name} outputs NaN or infinity for ordinary input; train or save it again.")
    _check_evaluation_mode(module, batch, outputs, name)
    return outputs


def run_probe(module: nn.Module, batch: Tensor, name: str) -> Tensor:
    """Run a module on a batch, in a daemon thread, because PyTorch cannot stop one that takes too long."""
    future: Future[Tensor] = Future()

    def run() -> None:
        try:
            with torch.inference_mode(), quiet_torchscript():
                future.set_result(module(batch))
        except Exception as error:
            future.set_exception(error)

    worker = threading.Thread(target=run, name="t3ssfast-probe", daemon=True)
    worker.start()
    try:
        worker.join(TIMEOUT_SECONDS)
    except KeyboardInterrupt:
        # A thread that returns from native code while the interpreter shuts down would abort the process.
        worker.join(TIMEOUT_SECONDS)
        raise
    if worker.is_alive():
        raise ModelError(
            f"{name} did not return outputs for an input of shape {tuple(batch.shape)} within "
            f"{TIMEOUT_SECONDS:g} s; give a smaller model."
        )
    try:
        return future.result()
    except Refusal:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise RunError(str(error)) from error


def _check_evaluation_mode(module: nn.Module, batch: Tensor, outputs: Tensor, name: str) -> None:
    """Refuse a model that was saved in training mode and cannot be switched to evaluation mode."""
    if not torch.equal(run_probe(module, batch, name), outputs):
        raise ModelError(
            f"{name} gives different outputs for the same input: dropout or another layer is random; save it "
            "in evaluation mode (module.eval())."
        )
    try:
        alone = run_probe(module, batch[:1], name)
    except RunError:
        # Traced with a fixed batch size: there is nothing to compare.
        return
    scale = float(outputs.abs().max()) + 1e-6
    if alone.shape != outputs[:1].shape or float((alone - outputs[:1]).abs().max()) > BATCH_TOLERANCE * scale:
        raise ModelError(
            f"{name} gives different outputs for an input alone and in a batch: its batch normalisation is "
            "in training mode; save it in evaluation mode (module.eval())."
        )
