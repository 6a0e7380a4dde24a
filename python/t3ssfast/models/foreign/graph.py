"""The graph of operators on tensors, each checked by its rule and counted; of weights, computed at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from t3ssfast.models.foreign.operators import CONSTANTS_ONLY, NEW_TENSORS, PROMOTING, RULES, VIEWS
from t3ssfast.models.foreign.pickles import TensorRecord
from t3ssfast.models.foreign.refusal import Refusal, TooLarge
from t3ssfast.models.foreign.signatures import Arguments, bind
from t3ssfast.models.foreign.values import FLOAT32, ShapeError, TensorValue, boxed, known

__all__ = ["GraphBuilder", "WritesInput", "number_call"]

# A scripted ResNet-18 has about 100.
MAX_OPERATORS = 5_000
# Per element of the input: a U-Net of 64 channels takes 64 elements and a million multiply-adds.
ELEMENTS_PER_INPUT, MIN_ELEMENTS = 1024, 1 << 24
WORK_PER_INPUT, MIN_WORK = 1e7, 4e9
# What is computed of weights alone, while the graph is built: some operators for each weight, as for weight
# standardisation. One element counts for at least 32 multiply-adds, which bounds memory, too.
FOLDED_PER_WEIGHT, MIN_FOLDED, FOLDED_PER_ELEMENT = 512, 1e9, 32
# Where and how a new tensor is stored, which is decided here.
STORAGE_OPTIONS = ("layout", "device", "pin_memory", "memory_format")


class WritesInput(Exception):
    """The model writes into its input."""


class GraphBuilder:
    """A graph for one input shape, and what is left of the bounds on its size and work."""

    def __init__(
        self, tensors: Mapping[tuple[str, TensorRecord], torch.Tensor], shape: tuple[int, ...]
    ) -> None:
        self.tensors = tensors
        self.graph = fx.Graph()
        self.attributes: dict[str, Any] = {}
        self.constants: dict[tuple[str, TensorRecord], TensorValue] = {}
        self.operators = 0
        elements = math.prod(shape)
        self.max_elements = MIN_ELEMENTS + ELEMENTS_PER_INPUT * elements
        self.work_left = MIN_WORK + WORK_PER_INPUT * elements
        weights = sum(tensor.numel() for tensor in tensors.values())
        self.folding_left = MIN_FOLDED + FOLDED_PER_WEIGHT * weights
        self.input = self.value(self.graph.placeholder("image"), shape, object())

    def constant(self, folder: str, record: TensorRecord) -> TensorValue:
        key = folder, record
        if key not in self.constants:
            if key not in self.tensors:
                raise Refusal("its code uses a tensor within a list of its table of constants")
            tensor = self.tensors[key]
            self.constants[key] = TensorValue(tuple(tensor.shape), tensor.dtype, constant=tensor)
        return self.constants[key]

    def tensor_call(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        in_place = name.endswith("_") and name[:-1] in RULES
        base = name[:-1] if in_place else name
        if base not in RULES:
            raise Refusal(f"its code calls torch.{name[:64]}, which cannot be translated")
        if base in NEW_TENSORS:
            keywords = {key: v for key, v in keywords.items() if key not in STORAGE_OPTIONS}
        arguments = bind(name, args, keywords)
        arguments.name = base
        tensors = arguments.tensors()
        is_constant = all(tensor.constant is not None for tensor in tensors)
        for tensor in tensors:
            known_value = tensor.constant is not None
            number = tensor.shape == () and (known_value or tensor.dtype == torch.float64)
            # Integers and booleans are known values, which arithmetic with the input makes float32.
            promoted = is_constant or (known_value and base in PROMOTING)
            if tensor.dtype != FLOAT32 and not (number or promoted):
                raise Refusal(f"its operator torch.{name} takes a tensor of {tensor.dtype}")
        if base in CONSTANTS_ONLY and not is_constant:
            raise Refusal(f"its operator torch.{name} makes booleans of the input")
        result = RULES[base](arguments)
        self.operators += max(1, len(result.shapes))
        self.work_left -= result.work * math.prod(result.shapes[0]) if result.shapes else 0
        largest = max(map(math.prod, result.shapes), default=0)
        if largest > self.max_elements:
            raise TooLarge("it needs far more memory than a network of this input size")
        if self.operators > MAX_OPERATORS or self.work_left < 0:
            raise Refusal("it computes far more than a network of this input size needs")
        shares = tensors[0].storage if in_place or base in VIEWS else object()
        if in_place:
            self.check_write(tensors[0], result.shapes[0], name)
        if is_constant:
            return self.fold(arguments, result, shares)
        positional, named = arguments.call(self.node_of)
        node = self.graph.call_function(arguments.operator, positional, named)
        # Traces hold numbers in double precision; of tensors without axes alone, so is the result.
        double = all(t.shape == () for t in tensors) and any(t.dtype == torch.float64 for t in tensors)
        result_dtype = torch.float64 if double else FLOAT32
        if len(result.shapes) == 1 and not result.many:
            return self.value(node, result.shapes[0], shares, result_dtype)
        parts = []
        for index, shape in enumerate(result.shapes):
            dtype = torch.int64 if result.indices and index == 1 else result_dtype
            part = self.graph.call_function(operator.getitem, (node, index))
            parts.append(self.value(part, shape, shares, dtype))
        return parts if result.many else tuple(parts)

    def check_write(self, target: TensorValue, shape: tuple[int, ...], name: str) -> None:
        """Refuse to write into weights; what writes into the input must get a copy of it."""
        if target.constant is not None or any(target.storage is c.storage for c in self.constants.values()):
            raise Refusal(f"its operator torch.{name} changes a weight")
        if shape != target.shape:
            raise ShapeError(f"torch.{name} would change the shape {target.shape} to {shape}")
        if target.storage is self.input.storage:
            raise WritesInput

    def fold(self, arguments: Arguments, result: Any, shares: object) -> Any:
        """Compute an operator on constants at once."""

        def tensor_of(value: TensorValue) -> torch.Tensor | None:
            return value.constant

        positional, named = arguments.call(tensor_of)
        elements = sum(map(math.prod, result.shapes))
        self.folding_left -= max(FOLDED_PER_ELEMENT, result.work) * elements
        if self.folding_left < 0:
            raise Refusal("it computes far more of its weights than a network needs")
        try:
            with torch.no_grad():
                outputs = arguments.operator(*positional, **named)
        except (RuntimeError, ValueError) as error:
            raise ShapeError(f"torch.{arguments.name} cannot be computed") from error
        several = isinstance(outputs, tuple | list)
        values = []
        for tensor, shape in zip(outputs if several else [outputs], result.shapes, strict=True):
            if tuple(tensor.shape) != shape:
                raise ShapeError(f"torch.{arguments.name} gives {tuple(tensor.shape)}, not {shape}")
            values.append(TensorValue(shape, tensor.dtype, constant=tensor, storage=shares))
        return (values if result.many else tuple(values)) if several else values[0]

    def value(
        self, node: fx.Node, shape: tuple[int, ...], shares: object, dtype: torch.dtype = FLOAT32
    ) -> TensorValue:
        node.meta |= {"shape": shape, "dtype": dtype}
        return TensorValue(shape, dtype, node=node, storage=shares)

    def node_of(self, value: Any) -> fx.Node:
        if not isinstance(value, TensorValue):
            raise Refusal("its answer is not a tensor")
        if value.node is None:
            name = f"constant_{len(self.attributes)}"
            self.attributes[name] = value.constant
            value.node = self.graph.get_attr(name)
            value.node.meta |= {"shape": value.shape, "dtype": value.dtype}
        return value.node


def number_call(name: str, args: list[Any], keywords: dict[str, Any]) -> TensorValue:
    """Compute a function of numbers of which some are tensors without axes."""
    numbers = [known(v) for v in args]
    if not all(type(v) in (int, float, bool) for v in numbers) or keywords.keys() - {
        "alpha",
        "rounding_mode",
    }:
        raise Refusal(f"its code calls torch.{name} with arguments that it does not take")
    # The quotient of the least integer and -1 ends a process.
    if any(type(v) is int and abs(v) >= 2**31 for v in (*numbers, *keywords.values())):
        raise Refusal(f"its code calls torch.{name} with a number of over 31 bits")
    operands = [v.constant if isinstance(v, TensorValue) else v for v in args]
    try:
        with torch.no_grad():
            return boxed(getattr(torch.ops.aten, name)(*operands, **keywords))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ShapeError(f"torch.{name} cannot be computed") from error
