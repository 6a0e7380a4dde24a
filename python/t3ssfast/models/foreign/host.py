"""Functions of TorchScript on numbers, texts and lists, whose values are known while the graph is built."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from t3ssfast.models.foreign.refusal import Refusal, quoted
from t3ssfast.models.foreign.values import FLOAT32, ShapeError, TensorValue, boxed, known

__all__ = ["ARITHMETIC", "STRUCTURE", "TENSOR_ARITHMETIC", "call_host", "steps_of"]

MAX_LENGTH = 10_000
FLOAT32_CODE = 6
NUMBER_TYPES = {3: torch.int32, 4: torch.int64, 6: torch.float32, 7: torch.float64}


def call_host(name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
    """Compute a function of known values; `Refusal` if it does not take them."""
    try:
        result = _HOST[name](*args, **keywords)
    except ShapeError:
        raise
    except ZeroDivisionError as error:
        raise ShapeError("a number is divided by zero") from error
    except (TypeError, IndexError, KeyError, AttributeError, OverflowError, ValueError) as error:
        raise Refusal(f"its code calls {name} with arguments that it does not take") from error
    if isinstance(result, int) and not -(2**63) <= result < 2**63:
        raise Refusal("its code computes an integer of more than 64 bits")
    if isinstance(result, list | str) and len(result) > MAX_LENGTH:
        raise Refusal(f"its code makes a list of over {MAX_LENGTH} elements")
    return result


def _number(value: Any) -> Any:
    if type(value) not in (int, float, bool):
        raise TypeError
    return value


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any) -> Any:
        return function(*map(_number, args))

    return checked


def _sum(a: Any, b: Any, alpha: Any = 1) -> Any:
    if type(a) is type(b) is list:
        return a + b
    return _number(a) + _number(alpha) * _number(b)


def _difference(a: Any, b: Any, alpha: Any = 1) -> Any:
    return _number(a) - _number(alpha) * _number(b)


def _product(a: Any, b: Any) -> Any:
    if isinstance(a, list):
        if type(b) is not int or len(a) * b > MAX_LENGTH:
            raise TypeError
        return a * b
    return _number(a) * _number(b)


def _quotient(a: Any, b: Any, rounding_mode: Any = None) -> Any:
    quotient = _number(a) / _number(b)
    roundings: dict[Any, Callable[[float], Any]] = {None: float, "floor": math.floor, "trunc": math.trunc}
    return roundings[rounding_mode](quotient)


def _power(a: Any, b: Any) -> Any:
    if abs(_number(a)) > 2**31 or abs(_number(b)) > 64:
        raise TypeError
    return _number(a**b)  # a root of a negative number is complex


def _floordiv(a: Any, b: Any) -> Any:
    """Divide as C++ does: 1.0 by 0.1 is 10, not 9."""
    if type(_number(a)) is type(_number(b)) is int:
        return a // b
    return float(math.floor(a / b))


def _item(sequence: Any, index: Any) -> Any:
    if type(sequence) not in (list, tuple) or type(index) is not int:
        raise TypeError
    if not -len(sequence) <= index < len(sequence):
        raise ShapeError(f"there is no element {index} in a list of {len(sequence)}")
    return sequence[index]


def _slice(sequence: Any, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    if type(sequence) is not list:
        raise TypeError
    return sequence[slice(start, end, step)]


def _append(sequence: Any, value: Any) -> Any:
    if type(sequence) is not list or len(sequence) >= MAX_LENGTH:
        raise TypeError
    sequence.append(value)
    return sequence


def _extend(sequence: Any, values: Any) -> None:
    if type(sequence) is not list or type(values) is not list or len(sequence) + len(values) > MAX_LENGTH:
        raise TypeError
    sequence.extend(values)


def _insert(sequence: Any, index: Any, value: Any) -> None:
    _append(sequence, value).insert(index, sequence.pop())


def _pop(sequence: Any, index: Any = -1) -> Any:
    value = _item(sequence, index)
    del sequence[index]
    return value


def _copy(sequence: Any) -> Any:
    if type(sequence) is not list:
        raise TypeError
    return list(sequence)


def _set_item(sequence: Any, index: Any, value: Any) -> Any:
    _item(sequence, index)
    sequence[index] = value
    return sequence


def _same_value(a: Any, b: Any) -> bool:
    """Compare numbers, texts, or lists of them; anything nested would recurse."""
    for value in (*(a if type(a) is list else [a]), *(b if type(b) is list else [b])):
        if type(value) not in (int, float, bool, str, type(None)):
            raise TypeError
    return bool(a == b)


def _contains(sequence: Any, value: Any) -> bool:
    if type(sequence) is not list:
        raise TypeError
    return any(_same_value(item, value) for item in sequence)


def _extreme(choose: Callable[[Any], Any]) -> Callable[..., Any]:
    def of_numbers(*values: Any) -> Any:
        return choose([_number(v) for v in (values[0] if len(values) == 1 else values)])

    return of_numbers


def _length(value: Any) -> int:
    if isinstance(value, TensorValue):
        return value.shape[0]
    if type(value) not in (list, tuple, dict, str):
        raise TypeError
    return len(value)


def _size(tensor: TensorValue, dim: int | None = None) -> Any:
    if dim is None:
        return list(tensor.shape)
    if not -len(tensor.shape) <= dim < len(tensor.shape):
        raise ShapeError(f"there is no axis {dim} in an input of {len(tensor.shape)} axes")
    return tensor.shape[dim]


def _to_float32(tensor: TensorValue, *args: Any, **keywords: Any) -> TensorValue:
    if not isinstance(tensor, TensorValue):
        raise TypeError
    # The second is whether to copy even where nothing changes.
    if any([v for v in args if type(v) is bool][1:]) or keywords.get("copy"):
        raise Refusal("its code converts a tensor with copy=True")
    dtypes = [v for v in args if type(v) is int] + [keywords.get("dtype", FLOAT32_CODE)]
    if type(number := known(tensor)) in (int, float) and dtypes[0] in NUMBER_TYPES:
        dtype = NUMBER_TYPES[dtypes[0]]
        return boxed(torch.tensor(number if dtype.is_floating_point else int(number), dtype=dtype))
    if tensor.constant is not None and dtypes[0] == FLOAT32_CODE:
        return TensorValue(tensor.shape, constant=tensor.constant.to(FLOAT32))
    if any(dtype not in (FLOAT32_CODE, None) for dtype in dtypes):
        raise Refusal(f"its code converts a tensor to another dtype than float32 ({dtypes[0]})")
    return tensor


def _type_as(tensor: TensorValue, other: TensorValue) -> TensorValue:
    if tensor.dtype != other.dtype:
        raise TypeError
    return tensor


def _dtype(tensor: TensorValue) -> int:
    return {dtype: code for code, dtype in NUMBER_TYPES.items()}[tensor.dtype]


class _Message(str):
    """A text for people. PyTorch writes numbers in another way, so that it is equal to no other text."""


def _format(text: str, *values: Any) -> str:
    shown = (str(v) if type(v) in (int, float, bool) else type(v).__name__ for v in values[:MAX_LENGTH])
    return _Message("".join(part + next(shown, "") for part in text[:MAX_LENGTH].split("{}"))[:MAX_LENGTH])


def _raise(message: str = "", *_: Any) -> None:
    raise ShapeError(f"its code raises {quoted(message)}")


def _first(value: Any, *_: Any) -> Any:
    return value


def _convert(kind: type) -> Callable[[Any], Any]:
    return lambda value: kind(value if kind is float and type(value) is str else _number(value))


# Functions of lists and of tensors' sizes, which never need the values of a tensor.
STRUCTURE: dict[str, Callable[..., Any]] = {
    "size": _size,
    "dim": lambda tensor: len(tensor.shape),
    "numel": lambda tensor: math.prod(tensor.shape),
    "is_floating_point": lambda tensor: tensor.dtype.is_floating_point,
    "len": _length,
    "append": _append,
    "extend": _extend,
    "insert": _insert,
    "pop": _pop,
    "copy": _copy,
    "list": _copy,
    "_set_item": _set_item,
    "__getitem__": _item,
    "__is__": lambda a, b: a is b,
    "__isnot__": lambda a, b: a is not b,
    "to": _to_float32,
    "type_as": _type_as,
    "detach": _first,
    "alias": _first,
    "format": _format,
    "warn": lambda *_: None,
    "device": lambda *_: "cpu",
    "prim.device": lambda *_: "cpu",
    "prim.dtype": _dtype,
    "prim.data": _first,
    "prim.RaiseException": _raise,
}
# Functions of numbers and lists; of a tensor, the names that are operators, too, mean the operators.
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": _sum,
    "sub": _difference,
    "rsub": lambda a, b, alpha=1: _difference(b, a, alpha),
    "mul": _product,
    "div": _quotient,
    "true_divide": _quotient,
    "floordiv": _floordiv,
    "floor_divide": _floordiv,
    "remainder": _on_numbers(operator.mod),
    "pow": _power,
    "neg": _on_numbers(operator.neg),
    "abs": _on_numbers(abs),
    "sqrt": _on_numbers(math.sqrt),
    "floor": _on_numbers(math.floor),
    "ceil": _on_numbers(math.ceil),
    "trunc": _on_numbers(math.trunc),
    "round": _on_numbers(lambda value: float(round(value))),
    "slice": _slice,
    "eq": _same_value,
    "ne": lambda a, b: not _same_value(a, b),
    "lt": _on_numbers(operator.lt),
    "le": _on_numbers(operator.le),
    "gt": _on_numbers(operator.gt),
    "ge": _on_numbers(operator.ge),
    "__and__": _on_numbers(operator.and_),
    "__or__": _on_numbers(operator.or_),
    "__not__": lambda value: not _number(value),
    "__contains__": _contains,
    "__range_length": lambda low, high, step: len(range(low, high, step)),
    "__derive_index": lambda index, low, step: low + index * step,
    **dict.fromkeys(["Int", "IntImplicit"], _convert(int)),
    **dict.fromkeys(["Float", "FloatImplicit"], _convert(float)),
    **dict.fromkeys(["Bool"], _convert(bool)),
    **dict.fromkeys(["item", "ScalarImplicit"], _number),
    "prim.NumToTensor": lambda value: boxed(_number(value)),
    "prim.min": _extreme(min),
    "prim.max": _extreme(max),
}
_HOST = STRUCTURE | ARITHMETIC
# Of tensors without axes, PyTorch itself computes them, in the tensors' precision.
_TENSOR_ARITHMETIC = """
add sub rsub mul div true_divide floor_divide remainder pow neg abs sqrt floor ceil trunc round
eq ne lt le gt ge
"""
TENSOR_ARITHMETIC = frozenset(_TENSOR_ARITHMETIC.split())
# Functions that take the same time for every list.
_CONSTANT_TIME = frozenset(
    ("__getitem__", "append", "len", "pop", "_set_item", "__is__", "__isnot__", "size", "to", "detach")
)
_SIZED = (list, tuple, dict, str)


def steps_of(name: str, args: list[Any], result: Any) -> int:
    """Return the steps that a function counts for, above one: as many as its lists have elements."""
    if name in _CONSTANT_TIME:
        return 0
    return sum(len(v) // (100 if isinstance(v, str) else 1) for v in (*args, result) if isinstance(v, _SIZED))
