"""Values while a model's code is evaluated for one input shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

__all__ = ["FLOAT32", "ShapeError", "TensorValue", "boxed", "known"]

FLOAT32 = torch.float32


class ShapeError(ValueError):
    """The model does not take an input of this shape, like any network that is given the wrong one."""


@dataclass(eq=False)
class TensorValue:
    """A tensor that the graph computes, or a constant.

    `storage` identifies the memory that views share with it, so that writing in place can be checked.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = FLOAT32
    node: fx.Node | None = None
    constant: torch.Tensor | None = None
    storage: object = field(default_factory=object)
    # Whether it is a number that the code made a tensor of, which in-place operators may change.
    is_number: bool = False


def boxed(number: int | float | torch.Tensor) -> TensorValue:
    """Return a number as the tensor without axes that traces make of sizes."""
    if not isinstance(number, torch.Tensor):
        number = torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)
    return TensorValue((), constant=number, dtype=number.dtype, is_number=True)


def known(value: Any) -> Any:
    """Return a value, or the number that a constant tensor without axes holds."""
    if isinstance(value, TensorValue) and value.shape == () and value.constant is not None:
        return value.constant.item()
    return value
