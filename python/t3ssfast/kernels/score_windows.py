"""Run a classifier on the sliding windows of an image."""

from __future__ import annotations

import itertools
import math
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy.typing as npt
import torch

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels import _native, operators
from t3ssfast.kernels.plan import NoDensePlanError, Plan, estimate_cost, read_plan, run_model

__all__ = ["PLANS", "PRECISIONS", "score_windows"]

PLANS = ("auto", "windows", "dense")
PRECISIONS = ("float32", "tf32", "bfloat16")

# Batch sizes at which torch is close to its best throughput.
CPU_BATCH = 512
CUDA_BATCH = 4096


class HoldsModule(Protocol):
    """An object with a module, such as a loaded model file."""

    @property
    def module(self) -> torch.nn.Module: ...


def score_windows(
    model: torch.nn.Module | HoldsModule,
    image: npt.NDArray[Any] | torch.Tensor,
    *,
    mask: npt.NDArray[Any] | torch.Tensor | None = None,
    size: int = 50,
    precision: str = "float32",
    plan: str = "auto",
    batch_size: int | None = None,
    stride: int = 1,
) -> Any:
    """Run a classifier on every valid window of an image, or on the windows that a mask selects.

    Not differentiable: an image that requires a gradient is refused. Inside `torch.compile` it is one
    operator, for an eager module and with PyTorch 2.12 or later; PyTorch compiles no function that uses
    TorchScript. With a mask the number of windows depends on the data, for which
    ``torch._dynamo.config.capture_dynamic_output_shape_ops`` must be set.

    Parameters
    ----------
    model
        TorchScript (scripted, traced or frozen) or eager module in evaluation mode, float32, mapping
        (M, 1, size, size) to (M, C), on the image's device; or a loaded model.
    image
        (H, W) or (N, H, W), NumPy array, torch tensor or DLPack object (CuPy ...) of finite values.
    mask
        (..., H-size+1, W-size+1), bool or uint8: the windows to score, indexed by their top-left corner; all
        of them if None.
    size
        Side of a window in pixels.
    precision
        "float32": within 1e-4 of the model run window by window. "tf32" and "bfloat16" let a CUDA device
        multiply numbers rounded to 10 and 7 bits of mantissa, which is faster and changes scores by a few
        1e-4 and 1e-3 of the largest one. On a CPU, "tf32" is float32 and "bfloat16" is refused.
    plan
        "dense": shared feature maps, exact, for LeNet-like chains of layers. "windows": batches of windows,
        for any model. "auto": the cheaper one, see `explain_plan`.
    batch_size
        Number of windows that plan "windows" runs, and holds in memory, at a time.
    stride
        Windows begin at every `stride`-th row and column; mask and scores have one entry for each of these.

    Returns
    -------
    (M, C) float32 if a mask is given, windows in C order, else (C, ..., H-size+1, W-size+1); an array or a
    tensor on the same device as the image.

    Raises
    ------
    InputError
        If the image or the mask has the wrong shape or dtype, or the image contains NaN or Inf.
    ConfigError
        If an option has an invalid value.
    ModelError
        If the model cannot be run on such windows, or has no dense plan and plan is "dense".
    """
    operators.refuse_gradient(image, "score_windows")
    if isinstance(image, torch.Tensor) and torch.compiler.is_compiling():
        number, classes = _numbered(model, size)
        return _by_operator(image, mask, number, classes, size, precision, plan, batch_size or 0, stride)
    for name, value, choices in (("plan", plan, PLANS), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise ConfigError(f"{name} is {value!r}; give one of {', '.join(choices)}.")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give 1 or more, or None.")
    if stride < 1:
        raise ConfigError(f"stride is {stride}; give 1 or more pixels.")
    module = model if isinstance(model, torch.nn.Module) else model.module
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask, stride)
    if precision == "bfloat16" and stack.device.type != "cuda":
        raise ConfigError(
            f'precision "bfloat16" needs a CUDA device, and the image is on {stack.device}; use "float32".'
        )
    requested = windows.count / max(1, math.prod(windows.shape))
    dense_plan = None if plan == "windows" else _dense_plan(module, size, stack.device, requested, plan)
    if dense_plan is not None:
        program = dense_plan.program()
        scores = _native.score_windows(stack, size, program, windows, precision=precision, stride=stride)
    else:
        scores = _score_batches(module, stack, size, windows, precision, batch_size, stride)
    return _native.to_caller(scores, stack)


# Models that compiled functions use, by number: an operator takes no module.
_compiled_models: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = itertools.count()


def _numbered(model: torch.nn.Module | HoldsModule, size: int) -> tuple[int, int]:
    """Return the number of a model for `_by_operator`, and its number of classes; called while compiling."""
    module = model if isinstance(model, torch.nn.Module) else model.module
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    classes = run_model(module, torch.zeros(1, 1, size, size, device=device)).shape[1]
    number = next(_numbers)
    _compiled_models[number] = module
    return number, classes


# What torch.compiler.assume_constant_result does; it would import torch._dynamo, which takes a second.
_numbered._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("t3ssfast::score_windows", mutates_args=())
def _by_operator(
    image: torch.Tensor,
    mask: torch.Tensor | None,
    model: int,
    classes: int,
    size: int,
    precision: str,
    plan: str,
    batch_size: int,
    stride: int,
) -> torch.Tensor:
    """Score windows in a compiled function, with the model's weights at the time of the call."""
    module = _compiled_models.get(model)
    if module is None:
        raise ModelError("The model of a compiled function was deleted; keep it as long as the function.")
    scores: torch.Tensor = score_windows(
        module,
        image,
        mask=mask,
        size=size,
        precision=precision,
        plan=plan,
        batch_size=batch_size or None,
        stride=stride,
    )
    return scores


@_by_operator.register_fake
def _(
    image: torch.Tensor,
    mask: torch.Tensor | None,
    model: int,
    classes: int,
    size: int,
    precision: str,
    plan: str,
    batch_size: int,
    stride: int,
) -> torch.Tensor:
    if mask is not None:
        return image.new_empty((operators.window_count(image, size, mask), classes), dtype=torch.float32)
    return image.new_empty((classes, *operators.window_shape(image, size, stride)), dtype=torch.float32)


def _dense_plan(
    model: torch.nn.Module, size: int, device: torch.device, requested: float, plan: str
) -> Plan | None:
    """Return the model's dense plan if `plan` requires it, or if it is cheaper for the requested share."""
    try:
        dense_plan = read_plan(model, size, device)
    except NoDensePlanError as reason:
        if plan == "auto":
            return None
        raise ModelError(
            f'The model cannot be run by plan "dense", because {reason}; use plan "windows" or "auto".'
        ) from reason
    dense = plan == "dense" or estimate_cost(dense_plan, requested).cheaper_plan == "dense"
    return dense_plan if dense else None


def _score_batches(
    model: torch.nn.Module,
    stack: _native.ImageStack,
    size: int,
    windows: _native.Windows,
    precision: str,
    batch_size: int | None,
    stride: int,
) -> torch.Tensor:
    """Run the model on batches of windows: (M, C) for a list of windows, (C, ...) for all windows."""
    if batch_size is None:
        batch_size = CUDA_BATCH if stack.device.type == "cuda" else CPU_BATCH
    among = windows.listed(stack.window_shape(size), stride, stack.device)
    assert among.index is not None, "a list"
    buffer = torch.zeros((min(batch_size, max(windows.count, 1)), 1, size, size), device=stack.device)
    batches = []
    for part in torch.split(among.index, batch_size):
        # For an empty mask, the model is run on a blank window to find the number of classes.
        batch = buffer[: max(len(part), 1)]
        _native.unfold(stack, size, _native.Windows(among.shape, part), zscore=False, out=batch)
        # Copied, because a model may return a view of its input, which the next batch overwrites.
        batches.append(run_model(model, batch, precision=precision)[: len(part)].clone())
    scores = torch.cat(batches)
    return scores if windows.index is not None else scores.T.reshape(scores.shape[1], *windows.shape)
