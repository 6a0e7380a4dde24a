"""Pickles of a TorchScript archive, interpreted into plain values; no global is ever looked up.

The globals that TorchScript writes are recognised by name. Tensors become `TensorRecord`s, modules become
`Instance`s. Nothing here recurses, so that nesting in the file cannot exhaust the stack.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from t3ssfast.models.foreign.refusal import Refusal, quoted

__all__ = ["Instance", "TensorRecord", "read_pickle", "read_tensor"]

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
DEVICE = re.compile(r"(cpu|(cuda|mps|xpu)(:\d{1,3})?)", re.ASCII)
KEY = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
# ResNet-18 has 8,000.
MAX_OPCODES = 250_000
MAX_AXES = 8
# Product of the other axes of a tensor without elements.
MAX_EMPTY = 1 << 20


@dataclass(frozen=True, eq=False)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage in the archive."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class Instance:
    """A module of a class of the archive; `state` is None until it is set."""

    class_name: str
    state: dict[str, Any] | None = None


class _Mark:
    pass


MARK = _Mark()


def read_pickle(content: bytes, name: str) -> Any:
    """Return what a pickle holds; `Refusal` if it is damaged or holds more than a TorchScript file needs."""
    reader = _Reader(name)
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if number > MAX_OPCODES:
                raise Refusal(f"{name} has over {MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                if position != len(content) - 1:
                    raise Refusal(f"{name} continues after its end")
                break
            reader.step(opcode.name, argument)
    except (
        ValueError,
        IndexError,
        TypeError,
        KeyError,
        AttributeError,
        struct.error,
        OverflowError,
    ) as error:
        raise Refusal(f"{name} is damaged ({quoted(str(error))})") from error
    if len(reader.stack) != 1:
        raise Refusal(f"{name} is damaged: it leaves {len(reader.stack)} values")
    return reader.stack[0]


class _Reader:
    """The stack and the memo of one pickle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode."""
        if opcode in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"):
            if isinstance(argument, int) and not -(2**63) <= argument < 2**63:
                raise Refusal(f"{self.name} holds an integer of more than 64 bits")
            self.stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise Refusal(f"{self.name} uses the pickle opcode {opcode}")

    def protocol(self, version: int) -> None:
        if version != 2:
            raise Refusal(f"{self.name} is a pickle of protocol {version}")

    def pop(self, wanted: type) -> Any:
        """Pop a value of a type."""
        value = self.stack.pop()
        if type(value) is not wanted:
            raise Refusal(f"{self.name} is damaged: {type(value).__name__} in place of {wanted.__name__}")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Pop the values above the last mark."""
        values: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def find_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        known = (
            (module == "torch" and name in STORAGES)
            or (module == "torch._utils" and name == "_rebuild_tensor_v2")
            or (module == "collections" and name == "OrderedDict")
            or (module == "torch.jit._pickle" and name in LISTS)
            or module == "__torch__"
            or module.startswith("__torch__.")
        )
        if not known:
            raise Refusal(f"{self.name} refers to {quoted(f'{module}.{name}')}")
        self.stack.append(_Global(module, name))

    def take_tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count or MARK in items:
            raise Refusal(f"{self.name} is damaged: a tuple of values that are not there")
        del self.stack[-count:]
        self.stack.append(items)

    def new_object(self) -> None:
        arguments, known = self.pop(tuple), self.pop(_Global)
        if arguments or not known.module.startswith("__torch__"):
            raise Refusal(f"{self.name} makes an object of {quoted(f'{known.module}.{known.name}')}")
        self.stack.append(Instance(f"{known.module}.{known.name}"))

    def set_items(self) -> None:
        values = self.pop_to_mark()
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise Refusal(f"{self.name} is damaged: items of something that is not a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str or key in target:
                raise Refusal(f"{self.name} sets a field twice or without a name")
            target[key] = value

    def build(self) -> None:
        state, target = self.pop(dict), self.stack[-1]
        if type(target) is not Instance or target.state is not None:
            raise Refusal(f"{self.name} sets the state of something that is not a new object")
        target.state = state

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list or MARK in values:
            raise Refusal(f"{self.name} is damaged: it appends to something that is not a list")
        target.extend(values)

    def persistent(self) -> None:
        fields = self.pop(tuple)
        if len(fields) != 5:
            raise Refusal(f"{self.name} has a storage of {len(fields)} fields")
        kind, dtype, key, device, count = fields
        if not (
            kind == "storage"
            and type(dtype) is _Global
            and dtype.name in STORAGES
            and type(key) is str
            and KEY.fullmatch(key)
            and type(device) is str
            and DEVICE.fullmatch(device)
            and type(count) is int
            and count >= 0
        ):
            raise Refusal(f"{self.name} has a storage that TorchScript does not write")
        self.stack.append(_Storage(dtype.name, key, count))

    def reduce(self) -> None:
        arguments, function = self.pop(tuple), self.pop(_Global)
        called = f"{function.module}.{function.name}"
        if called == "collections.OrderedDict" and not arguments:
            self.stack.append({})
        elif called == "torch._utils._rebuild_tensor_v2":
            self.stack.append(self.tensor(arguments))
        elif function.module == "torch.jit._pickle" and function.name in LISTS:
            # What a list is said to hold does not matter: every use looks at its elements.
            if not arguments or type(arguments[0]) not in (list, dict):
                raise Refusal(f"{self.name} is damaged: a list made from something else")
            self.stack.append(arguments[0])
        else:
            raise Refusal(f"{self.name} calls {quoted(called)}")

    def tensor(self, arguments: tuple[Any, ...]) -> TensorRecord:
        """Return a tensor whose elements all lie in its storage, and are not more than the storage's."""
        if len(arguments) != 6:
            raise Refusal(f"{self.name} has a tensor of {len(arguments)} fields")
        storage, offset, size, stride, requires_grad, hooks = arguments
        if not (
            type(storage) is _Storage
            and type(offset) is int
            and _is_extents(size)
            and _is_extents(stride)
            and len(size) == len(stride)
            and type(requires_grad) is bool
            and type(hooks) is dict
            and not hooks
        ):
            raise Refusal(f"{self.name} has a tensor that TorchScript does not write")
        elements, extent = math.prod(size), math.prod(max(n, 1) for n in size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (
            not 0 <= offset <= storage.count
            or extent > max(storage.count, MAX_EMPTY)
            or elements > storage.count
            or (elements and last >= storage.count)
        ):
            raise Refusal(f"{self.name} has a tensor that reaches beyond its storage")
        return TensorRecord(storage, offset, size, stride)


def _is_extents(value: object) -> bool:
    return (
        type(value) is tuple
        and len(value) <= MAX_AXES
        and all(type(n) is int and 0 <= n < 2**40 for n in value)
    )


_CONSTANTS: dict[str, Any] = {
    "MARK": MARK,
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}

_ACTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader.protocol,
    "GLOBAL": _Reader.find_global,
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.pop_to_mark())),
    "TUPLE1": lambda reader, _: reader.take_tuple(1),
    "TUPLE2": lambda reader, _: reader.take_tuple(2),
    "TUPLE3": lambda reader, _: reader.take_tuple(3),
    "NEWOBJ": lambda reader, _: reader.new_object(),
    "SETITEMS": lambda reader, _: reader.set_items(),
    "BUILD": lambda reader, _: reader.build(),
    "APPEND": lambda reader, _: reader.append([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.append(reader.pop_to_mark()),
    "BINPERSID": lambda reader, _: reader.persistent(),
    "REDUCE": lambda reader, _: reader.reduce(),
}


def read_tensor(record: TensorRecord, folder: str, members: Mapping[str, bytes]) -> torch.Tensor:
    """Copy a tensor out of its member ("data/0", "constants/0") into dense memory of its own.

    Floating-point tensors become float32, except numbers in the table of constants: sizes are computed from
    them. `Refusal`: the member is missing or of another length.
    """
    storage = record.storage
    dtype = STORAGES[storage.dtype]
    name = f"{folder}/{storage.key}"
    content = members.get(name)
    if content is None:
        raise Refusal(f"its tensor {quoted(name)} is missing")
    if len(content) != storage.count * dtype.itemsize:
        raise Refusal(
            f"its tensor {quoted(name)} has {len(content)} bytes and should have "
            f"{storage.count * dtype.itemsize}"
        )
    if 0 in record.size:
        return torch.zeros(record.size)
    if dtype == torch.bool and content.strip(b"\0\1"):
        raise Refusal(f"its tensor {quoted(name)} holds bytes that are not booleans")
    values = torch.frombuffer(bytearray(content), dtype=dtype)
    view = values.as_strided(record.size, record.stride, record.offset)
    # The order of axes in memory decides how convolutions round.
    last = view.ndim == 4 and view.is_contiguous(memory_format=torch.channels_last)
    number = folder == "constants" and dtype == torch.float64 and not view.ndim
    keep = number or not dtype.is_floating_point
    view = view.to(dtype if keep else torch.float32, copy=True)
    return view.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
