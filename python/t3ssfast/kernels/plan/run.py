"""Running a classifier on windows, with checks of the model and its output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from t3ssfast.errors import ModelError
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["accepted_sizes", "check_model", "named_tensors", "run_model"]


@contextlib.contextmanager
def _precision(device: torch.device, precision: str) -> Iterator[None]:
    """Set the precision of CUDA arithmetic, since cuDNN uses TF32 for convolutions by default."""
    if device.type != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    mode = "ieee" if precision == "float32" else "tf32"
    matmul.fp32_precision = convolution.fp32_precision = mode
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def run_model(model: torch.nn.Module, windows: torch.Tensor, *, precision: str = "float32") -> torch.Tensor:
    """Run a model on (M, 1, size, size) float32 windows; return (M, C) float32 scores.

    A CPU computes in float32 at any precision. ModelError is raised for a model that `check_model` refuses,
    that does not accept the windows, or that does not return (M, C) real numbers.
    """
    check_model(model, windows.device)
    size = int(windows.shape[-1])
    try:
        with torch.no_grad(), _precision(windows.device, precision):
            scores = model(windows)
    # TorchScript raises an exception of its own, not a RuntimeError.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        sizes = accepted_sizes(model, size, windows.device)
        if sizes and size not in sizes:
            raise ModelError(
                f"The model does not accept windows of {size} x {size} pixels; give a size that it accepts "
                f"({', '.join(map(str, sizes))}), or another model."
            ) from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"The model cannot be run on windows of shape (M, 1, {size}, {size}) ({lines[-1].rstrip('.')}); "
            "give a classifier that accepts them."
        ) from error
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[0] != windows.shape[0]:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ModelError(
            f"The model returns {found} for {len(windows)} windows, not one row of class scores per window, "
            "(M, C); give a classifier."
        )
    if not scores.is_floating_point() or scores.shape[1] == 0:
        raise ModelError(
            f"The model returns {scores.shape[1]} values of {scores.dtype} per window, not real class "
            "scores; give a classifier."
        )
    return scores.to(torch.float32)


def check_model(model: torch.nn.Module, device: torch.device) -> None:
    """Raise `ModelError` unless a model is in evaluation mode, in float32 and on a device."""
    if getattr(model, "training", False):
        raise ModelError(
            "The model is in training mode, in which dropout and batch normalisation change its output; "
            "call model.eval() first."
        )
    for name, tensor in named_tensors(model):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"The model's {name} is {tensor.dtype}, not float32; call model.float() first.")
        if tensor.device != device:
            raise ModelError(
                f"The model's {name} is on {tensor.device} and the image on {device}; move one to the other."
            )


def named_tensors(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the parameters and buffers of a model with their names."""
    return [*model.named_parameters(), *model.named_buffers()]


def accepted_sizes(model: torch.nn.Module, size: int, device: torch.device) -> list[int]:
    """Return the first window sizes up to 160 pixels that the model accepts, one window at a time."""
    accepted: list[int] = []
    for other in range(4, 161):
        with torch.no_grad(), contextlib.suppress(Exception):
            scores = model(torch.zeros(1, 1, other, other, device=device))
            if isinstance(scores, torch.Tensor) and scores.ndim == 2:
                accepted.append(other)
        if len(accepted) == 16:
            break
    return accepted
