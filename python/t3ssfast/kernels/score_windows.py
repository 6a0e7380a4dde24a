"""Runs a classifier on every window of an image at stride 1, or on those a mask asks for."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy.typing as npt
import torch

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, estimate_cost, read_plan, run_model

__all__ = ["score_windows"]


class HoldsModule(Protocol):
    """Anything that holds a module, such as a loaded model file."""

    @property
    def module(self) -> torch.nn.Module: ...


PLANS = ("auto", "windows", "dense")
PRECISIONS = ("float32", "tf32", "bfloat16")

# Batches at which torch is near its best; larger ones only take memory.
CPU_BATCH = 512
CUDA_BATCH = 4096


def score_windows(
    model: torch.nn.Module | HoldsModule,
    image: npt.NDArray[Any] | torch.Tensor,
    *,
    mask: npt.NDArray[Any] | torch.Tensor | None = None,
    size: int = 50,
    precision: str = "float32",
    plan: str = "auto",
    batch_size: int | None = None,
) -> Any:
    """What a classifier answers on windows of an image, each by itself.

    Parameters
    ----------
    model
        TorchScript (scripted, traced or frozen) or eager module in evaluation mode, float32, mapping
        (M, 1, size, size) to (M, C), on the image's device; or a loaded model.
    image
        (H, W) or (N, H, W), numpy array or torch tensor, finite.
    mask
        (..., H-size+1, W-size+1): windows asked for, by top-left corner; all where None.
    size
        Edge of a window in voxels.
    precision
        "float32": within 1e-4 of the model run window by window. "tf32" and "bfloat16" let a CUDA device
        multiply numbers rounded to 10 and 7 bits of mantissa, which is faster and answers a few 1e-4 and 1e-3
        of the largest score away. On a CPU, "tf32" is float32 and "bfloat16" is refused.
    plan
        "dense": shared feature maps, exact, for LeNet-like chains. "windows": batches of windows, for any
        model. "auto": the one that `explain_plan` says is cheaper.
    batch_size
        Windows run at once by plan "windows"; never more than so many are held.

    Returns
    -------
    (M, C) where a mask is given, in C order of its windows, else (C, ..., H-size+1, W-size+1); float32, of
    the image's kind and on its device.

    Raises
    ------
    InputError
        If the image or the mask has the wrong shape or kind, or the image holds NaN or Inf.
    ConfigError
        If an option has a value that cannot be used.
    ModelError
        If the model cannot be run on such windows, or plan "dense" is asked for and cannot be had.
    """
    if plan not in PLANS:
        raise ConfigError(f'plan is {plan!r}; give "auto", "windows" or "dense".')
    if precision not in PRECISIONS:
        raise ConfigError(f'precision is {precision!r}; give "float32", "tf32" or "bfloat16".')
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give 1 or more, or None.")
    module = model if isinstance(model, torch.nn.Module) else model.module
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    if precision == "bfloat16" and stack.device.type != "cuda":
        raise ConfigError(
            f'precision "bfloat16" needs a CUDA device, and the image is on {stack.device}; use "float32".'
        )
    chosen = _choose(module, size, plan, windows, stack.device)
    if chosen is not None:
        answer = _native.score_windows(stack, size, chosen.program(), windows, precision=precision)
    else:
        answer = _score_batches(module, stack, size, windows, precision, batch_size)
    return _native.to_caller(answer, stack)


def _choose(
    model: torch.nn.Module, size: int, plan: str, windows: _native.Windows, device: torch.device
) -> Plan | None:
    """The dense plan, or None for plan "windows"."""
    if plan == "windows":
        return None
    read = read_plan(model, size, device)
    if isinstance(read, str):
        if plan == "dense":
            raise ModelError(
                f'The model cannot be run by plan "dense", because {read}; use plan "windows" or "auto".'
            )
        return None
    if plan == "dense":
        return read
    every = max(1, math.prod(windows.shape))
    cost = estimate_cost(read, windows.count / every)
    return read if cost.dense_seconds <= cost.windows_seconds else None


def _score_batches(
    model: torch.nn.Module,
    stack: _native.ImageStack,
    size: int,
    windows: _native.Windows,
    precision: str,
    batch_size: int | None,
) -> torch.Tensor:
    """Plan "windows": (M, C) where windows are listed, else (C, every window)."""
    if batch_size is None:
        batch_size = CUDA_BATCH if stack.device.type == "cuda" else CPU_BATCH
    buffer = torch.zeros((min(batch_size, max(windows.count, 1)), 1, size, size), device=stack.device)
    out: torch.Tensor | None = None
    for first in range(0, max(windows.count, 1), batch_size):
        last = min(first + batch_size, windows.count)
        if windows.index is None:
            index = torch.arange(first, last, device=stack.device)
        else:
            index = windows.index[first:last]
        # An empty mask is answered too: run on a blank window, the model says how many classes there are.
        batch = buffer[: max(last - first, 1)]
        _native.unfold(stack, size, _native.Windows(windows.shape, index), zscore=False, out=batch)
        answer = run_model(model, batch, precision=precision)[: last - first]
        if out is None:
            classes = answer.shape[1]
            shape = (classes, windows.count) if windows.index is None else (windows.count, classes)
            out = answer.new_empty(shape)
        if windows.index is None:
            out[:, first:last] = answer.T
        else:
            out[first:last] = answer
    assert out is not None  # at least one batch is run
    return out if windows.index is not None else out.reshape(len(out), *windows.shape)
