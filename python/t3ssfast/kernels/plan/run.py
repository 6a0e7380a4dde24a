"""Running a classifier on windows as it is, with its state and its answer checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from t3ssfast.errors import ModelError
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["check_state", "run_model", "tensors_of"]


@contextlib.contextmanager
def _precision(device: torch.device, precision: str) -> Iterator[None]:
    """CUDA arithmetic as asked for; cuDNN would take TF32 for convolutions by itself. A CPU knows float32."""
    if device.type != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    wanted = "ieee" if precision == "float32" else "tf32"
    matmul.fp32_precision = convolution.fp32_precision = wanted
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def run_model(model: torch.nn.Module, windows: torch.Tensor, *, precision: str = "float32") -> torch.Tensor:
    """What the model answers on windows, checked for its shape.

    Parameters
    ----------
    model
        Maps (M, 1, size, size) to (M, C).
    windows
        (M, 1, size, size) float32.
    precision
        "float32", "tf32" or "bfloat16"; the latter two matter on CUDA devices only.

    Returns
    -------
    (M, C) float32.

    Raises
    ------
    ModelError
        If the model is in training mode, does not take such windows, has weights of another dtype or on
        another device, or answers with something that is not (M, C) real numbers.
    """
    check_state(model, windows.device)
    size = int(windows.shape[-1])
    try:
        with torch.no_grad(), _precision(windows.device, precision):
            answer = model(windows)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        sizes = _sizes_taken(model, size, windows.device)
        if sizes:
            raise ModelError(
                f"The model does not take windows of {size} x {size} voxels, but of {sizes}; "
                "give that as size, or another model."
            ) from error
        raise ModelError(
            f"The model cannot be run on windows of shape (M, 1, {size}, {size}) ({reason.rstrip('.')}); "
            "give a classifier that takes them."
        ) from error
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or answer.shape[0] != windows.shape[0]:
        got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ModelError(
            f"The model answers {len(windows)} windows with {got}, not with one row of class scores for "
            "each, (M, C); give a classifier."
        )
    if not answer.is_floating_point() or answer.shape[1] == 0:
        raise ModelError(
            f"The model answers with {answer.shape[1]} values of {answer.dtype} for a window, "
            "not with real class scores; give a classifier."
        )
    return answer.to(torch.float32)


def check_state(model: torch.nn.Module, device: torch.device) -> None:
    """Refuses what gives other answers than the user wants, or none.

    Raises
    ------
    ModelError
        If the model is in training mode, or has weights of another dtype or on another device.
    """
    if getattr(model, "training", False):
        raise ModelError(
            "The model is in training mode, in which dropout and batch normalisation give other answers; "
            "call model.eval() before."
        )
    for name, tensor in tensors_of(model):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"The model's {name} is {tensor.dtype}, not float32; call model.float() before.")
        if tensor.device != device:
            raise ModelError(
                f"The model's {name} is on {tensor.device} and the image on {device}; move one to the other."
            )


def tensors_of(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def _sizes_taken(model: torch.nn.Module, size: int, device: torch.device) -> str:
    """Window sizes the model takes, in words; "" where none was found."""
    taken = []
    for other in range(4, 161):
        if other == size:
            continue
        try:
            with torch.no_grad():
                answer = model(torch.zeros(1, 1, other, other, device=device))
        except Exception:
            continue
        if isinstance(answer, torch.Tensor) and answer.ndim == 2:
            taken.append(other)
        if len(taken) == 16:
            break
    if not taken:
        return ""
    if taken == list(range(taken[0], taken[-1] + 1)) and len(taken) > 1:
        return f"{taken[0]} to {taken[-1]} voxels a side"
    return f"{' or '.join(map(str, taken))} voxels a side"
