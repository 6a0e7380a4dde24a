"""The kernels as PyTorch operators, for `torch.compile` and autograd.

Each has a fake kernel, which gives the shape of the result. Eager calls without gradients do not go through
an operator, which costs about 30 us a call. `unfold` is differentiable; its adjoint is `fold`. The operator
of `score_windows`, which needs a model, is in its module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from t3ssfast.errors import InputError
from t3ssfast.kernels import _native

__all__ = [
    "fold",
    "needs_operator",
    "refuse_gradient",
    "unfold",
    "window_count",
    "window_shape",
    "window_statistics",
]


def needs_operator(image: object) -> bool:
    """Return whether to call an operator: while compiling, or where the image requires a gradient."""
    if not isinstance(image, Tensor):
        return False
    return torch.compiler.is_compiling() or (image.requires_grad and torch.is_grad_enabled())


def refuse_gradient(image: object, kernel: str) -> None:
    """Raise InputError if a gradient would have to pass through a kernel that has none."""
    if isinstance(image, Tensor) and image.requires_grad and torch.is_grad_enabled():
        raise InputError(
            f"image requires a gradient, which {kernel} does not have; give image.detach(), or call it under "
            "torch.no_grad()."
        )


def window_shape(image: Tensor, size: int, stride: int = 1) -> tuple[int, ...]:
    """Return the shape of the valid windows of an image at every `stride`-th row and column."""
    if image.ndim not in (2, 3):
        raise InputError(f"image has shape {tuple(image.shape)}; give (H, W), or (N, H, W) for a stack.")
    *leading, height, width = image.shape
    return (*leading, (height - size) // stride + 1, (width - size) // stride + 1)


def window_count(image: Tensor, size: int, mask: Tensor | None) -> int | torch.SymInt:
    """Return the number of windows in a fake kernel: with a mask, one that is known only at run time."""
    if mask is not None:
        return torch.library.get_ctx().new_dynamic_size()
    count = 1
    for length in window_shape(image, size):
        count = count * length
    return count


# ------------------------------------------------------------------------------------------------- unfold


@torch.library.custom_op("t3ssfast::unfold", mutates_args=())
def unfold(image: Tensor, size: int, mask: Tensor | None, zscore: bool, dtype: torch.dtype) -> Tensor:
    """Extract windows: (M, size, size) of `dtype`; see `t3ssfast.unfold`."""
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    out = torch.empty((windows.count, size, size), dtype=dtype, device=stack.device)
    _native.unfold(stack, size, windows, zscore=zscore, out=out)
    return out


@unfold.register_fake
def _(image: Tensor, size: int, mask: Tensor | None, zscore: bool, dtype: torch.dtype) -> Tensor:
    return image.new_empty((window_count(image, size, mask), size, size), dtype=dtype)


@torch.library.custom_op("t3ssfast::fold", mutates_args=())
def fold(windows: Tensor, shape: list[int], mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Add windows (M, size, size) at their places in an image of `shape`; the adjoint of `unfold`.

    The sum is in float32 and in an order that depends only on the window's size.
    """
    size = windows.shape[-1]
    height, width = shape[-2:]
    rows, columns = height - size + 1, width - size + 1
    values = windows.to(torch.float32)
    if mask is None:
        columns_of_patches = values.reshape(-1, rows * columns, size * size).transpose(1, 2)
        image = torch.nn.functional.fold(columns_of_patches, (height, width), size)
        return image.reshape(shape).to(dtype)
    index = torch.nonzero(mask.reshape(-1)).reshape(-1)
    row = torch.div(index, columns, rounding_mode="floor")
    number = torch.div(row, rows, rounding_mode="floor")
    corner = (number * height + row - number * rows) * width + index - row * columns
    image = windows.new_zeros(shape, dtype=torch.float32)
    flat = image.view(-1)
    for y in range(size):
        for x in range(size):
            # No two windows have the same pixel at the same place, so nothing is lost.
            pixels = corner + (y * width + x)
            flat[pixels] = flat[pixels] + values[:, y, x]
    return image.to(dtype)


@fold.register_fake
def _(windows: Tensor, shape: list[int], mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    return windows.new_empty(shape, dtype=dtype)


def _save_for_fold(ctx: Any, inputs: tuple[object, ...], output: Tensor) -> None:
    image, _, mask, zscore, _ = inputs
    assert isinstance(image, Tensor)
    if zscore:
        raise InputError(
            'image requires a gradient, which normalise="zscore" does not have; give normalise=None, or '
            "image.detach()."
        )
    ctx.shape, ctx.dtype = list(image.shape), image.dtype
    ctx.save_for_backward(*([mask] if isinstance(mask, Tensor) else []))


def _fold_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    image = fold(gradient, ctx.shape, saved[0] if saved else None, ctx.dtype)
    return image, None, None, None, None


unfold.register_autograd(_fold_gradient, setup_context=_save_for_fold)


# -------------------------------------------------------------------------------------- window_statistics


@torch.library.custom_op("t3ssfast::window_statistics", mutates_args=())
def window_statistics(image: Tensor, size: int, statistics: str, mask: Tensor | None) -> Tensor:
    """Compute statistics, whose names are separated by commas; see `t3ssfast.window_statistics`."""
    stack = _native.as_stack(image, check=False)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    return _native.window_statistics(stack, size, statistics.split(","), windows)


@window_statistics.register_fake
def _(image: Tensor, size: int, statistics: str, mask: Tensor | None) -> Tensor:
    shape = window_shape(image, size) if mask is None else (window_count(image, size, mask),)
    return image.new_empty((len(statistics.split(",")), *shape), dtype=torch.float32)
