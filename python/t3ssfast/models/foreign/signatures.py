"""Arguments of a call, bound to the signature of an operator and checked against it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import torch

from t3ssfast.models.foreign.refusal import Refusal
from t3ssfast.models.foreign.values import FLOAT32, ShapeError, TensorValue

__all__ = ["Arguments", "bind"]

# No kernel, stride, padding or size of a network comes near it.
MAX_EXTENT = 1 << 20
_KINDS = """
Tensor List[Tensor] int float number bool str List[int] List[float] ScalarType MemoryFormat Layout Device
"""
KINDS = frozenset(_KINDS.split())
MEMORY_FORMATS = {0: torch.contiguous_format, 1: torch.preserve_format, 2: torch.channels_last}


@dataclass(frozen=True)
class _Argument:
    name: str
    kind: str
    optional: bool
    length: int | None
    keyword_only: bool
    required: bool
    default: Any

    def takes(self, value: Any) -> bool:
        """Whether a value is of this argument's kind; no value is ever converted but an int to a float."""
        if value is None:
            return self.optional
        if self.kind.startswith("List["):
            element = self.kind[5:-1]
            if isinstance(value, list):
                return all(_is(item, element) for item in value)
            return self.length is not None and _is(value, element)
        return _is(value, self.kind)


def _is(value: Any, kind: str) -> bool:
    if kind == "Tensor":
        return isinstance(value, TensorValue)
    if kind in ("Layout", "Device"):
        return False
    if kind in ("float", "number"):
        return type(value) in (int, float) or (kind == "number" and type(value) is bool)
    return type(value) is {"bool": bool, "str": str}.get(kind, int)


@cache
def _overloads(name: str) -> list[tuple[Any, list[_Argument]]]:
    """Return the overloads of an operator that compute from tensors and literals alone, without `out`."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        raise Refusal(f"its operator torch.{name} does not exist")
    found = []
    for overload in packet.overloads():
        operator = getattr(packet, overload)
        arguments = []
        for argument in operator._schema.arguments:
            kind = str(argument.real_type)
            optional = kind.startswith("Optional[")
            kind = kind[9:-1] if optional else kind
            required = not argument.has_default_value()
            if argument.is_out or argument.name == "out_dtype" or kind not in KINDS:
                break
            arguments.append(
                _Argument(
                    argument.name,
                    kind,
                    optional,
                    argument.N,
                    argument.kwarg_only,
                    required,
                    None if required else argument.default_value,
                )
            )
        else:
            # There are others of the same names on texts and numbers.
            results = [str(result.type) for result in operator._schema.returns]
            if "Tensor" in results or any("Tensor" in argument.kind for argument in arguments):
                found.append((operator, arguments))
    return found


class Arguments(dict[str, Any]):
    """The arguments of one call by name, with the checks that rules need; all failures name the operator."""

    def __init__(self, operator: Any, name: str, values: dict[str, Any], signature: list[_Argument]) -> None:
        super().__init__(values)
        self.operator = operator
        self.name = name
        self._signature = signature

    @property
    def x(self) -> tuple[int, ...]:
        """Shape of the first tensor."""
        first: TensorValue = self["input"] if "input" in self else self["self"]
        return first.shape

    def tensors(self) -> list[TensorValue]:
        """Return every tensor among the arguments."""
        found = []
        for value in self.values():
            found += [
                v for v in (value if isinstance(value, list) else [value]) if isinstance(v, TensorValue)
            ]
        return found

    def call(self, replace: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments, each tensor replaced by `replace(tensor)`."""

        def convert(argument: _Argument) -> Any:
            value = self[argument.name]
            if isinstance(value, list):
                return [replace(v) if isinstance(v, TensorValue) else v for v in value]
            if argument.kind == "ScalarType" and value is not None:
                return FLOAT32
            if argument.kind == "MemoryFormat" and value is not None:
                return MEMORY_FORMATS.get(value, torch.contiguous_format)
            return replace(value) if isinstance(value, TensorValue) else value

        positional = tuple(convert(a) for a in self._signature if not a.keyword_only)
        return positional, {a.name: convert(a) for a in self._signature if a.keyword_only}

    def refuse(self, problem: str) -> NoReturn:
        """Refuse the model."""
        raise Refusal(f"its operator torch.{self.name} {problem}")

    def require(self, valid: bool, problem: str) -> None:
        """Raise `ShapeError` unless sizes fit together."""
        if not valid:
            raise ShapeError(f"torch.{self.name}: {problem}")

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an optional tensor."""
        value = self.get(name)
        return None if value is None else value.shape

    def integer(self, name: str, low: int, high: int = MAX_EXTENT) -> int:
        """Return an integer within bounds."""
        value: int = self[name]
        if not low <= value <= high:
            self.refuse(f"has {name} = {value}, which must be from {low} to {high}")
        return value

    def integers(self, name: str, count: int, low: int, default: list[int] | None = None) -> list[int]:
        """Return `count` integers within bounds; one stands for all, none for the default."""
        value = self[name]
        values = [value] if isinstance(value, int) else list(value or [])
        if not values and default is not None:
            return default
        values = values * count if len(values) == 1 else values
        if len(values) != count or not all(low <= v <= MAX_EXTENT for v in values):
            self.refuse(
                f"has {name} = {values[:8]}, which must be {count} numbers from {low} to {MAX_EXTENT}"
            )
        self[name] = values
        return values

    def axis(self, name: str = "dim", rank: int | None = None) -> int:
        """Return an axis as a non-negative number."""
        return self.wrap(self[name], len(self.x) if rank is None else rank)

    def axes(self, name: str = "dim") -> list[int]:
        """Return axes as non-negative numbers without repetition; all of them for none."""
        value = self.get(name)
        values = [value] if isinstance(value, int) else list(value or range(len(self.x)))
        axes = [self.wrap(v, len(self.x)) for v in values]
        if len(set(axes)) != len(axes):
            self.refuse(f"names an axis twice in {values[:8]}")
        return axes

    def wrap(self, axis: int, rank: int) -> int:
        self.require(-rank <= axis < rank, f"there is no axis {axis} in {rank} axes")
        return axis % rank

    def finite(self, *names: str) -> None:
        """Refuse numbers that are NaN or infinite."""
        for name in names:
            value = self.get(name)
            if value is not None and not math.isfinite(value):
                self.refuse(f"has {name} = {value}")


def bind(name: str, positional: list[Any], keywords: dict[str, Any]) -> Arguments:
    """Bind a call to the first overload of aten::`name` whose signature takes its arguments; else refuse."""
    for operator, signature in _overloads(name):
        places = [a for a in signature if not a.keyword_only]
        if len(positional) > len(places):
            continue
        given = {a.name: value for a, value in zip(places, positional, strict=False)}
        if given.keys() & keywords.keys():
            continue
        given |= keywords
        names = {a.name for a in signature}
        if given.keys() - names or any(a.required and a.name not in given for a in signature):
            continue
        if all(a.takes(given[a.name]) for a in signature if a.name in given):
            complete = {a.name: given.get(a.name, a.default) for a in signature}
            for argument in signature:
                dtype = complete[argument.name] if argument.kind == "ScalarType" else None
                if dtype not in (None, 6, FLOAT32):
                    raise Refusal(f"its operator torch.{name} computes in another dtype than float32")
            return Arguments(operator, name, complete, signature)
    given_kinds = [
        type(v).__name__.replace("TensorValue", "Tensor") for v in (*positional, *keywords.values())
    ]
    kinds = ", ".join(given_kinds[:8]) + (", ..." if len(given_kinds) > 8 else "")
    raise Refusal(f"its operator torch.{name} takes no arguments of these types ({kinds})")
