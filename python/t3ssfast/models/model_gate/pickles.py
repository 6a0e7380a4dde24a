"""Pickles of a TorchScript archive, read without running anything, checked, and written anew.

The opcodes are interpreted into plain values. No global is ever looked up: the few that TorchScript writes
are recognised by name, and what they would build (tensors over storages in the archive, lists of a type,
objects of the archive's own classes) becomes a record of it. The records are compared with the types that
the code declares, and written out again in one fixed way, so that PyTorch reads what was checked.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t3ssfast.models.model_gate.kinds import Kind
from t3ssfast.models.model_gate.refusal import Refusal, quoted

__all__ = ["Fields", "Instance", "read_pickle", "storages_of", "write_pickle"]

# Bytes of an element of each storage.
STORAGES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
# What builds a list of elements of a type.
LISTS = {
    "build_intlist": "int",
    "build_doublelist": "float",
    "build_boollist": "bool",
    "build_tensorlist": "Tensor",
}
DEVICE = re.compile(r"(cpu|(cuda|mps|xpu)(:\d{1,3})?)", re.ASCII)
KEY = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
MOST_OPCODES = 5_000_000
MOST_AXES = 8
# Modules within modules, lists within lists.
DEEPEST = 64
MOST_BYTES = 64 << 20
PYTHON_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "NoneType": type(None)}

# Fields of each class of the archive, in order.
Fields = Mapping[str, Mapping[str, Kind]]


@dataclass(frozen=True, eq=False)
class _Global:
    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Elements in a member of the archive."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool


@dataclass(eq=False)
class ListRecord:
    """A list, and the type of its elements where it was written with it."""

    items: list[Any]
    of: str | None = None


@dataclass(eq=False)
class Instance:
    """An object of a class of the archive; `state` is None until it is set."""

    class_name: str
    state: dict[str, Any] | None = None


class _Mark:
    pass


MARK = _Mark()


def read_pickle(content: bytes, name: str) -> Any:
    """What a pickle says, as records.

    Raises
    ------
    Refusal
        It is damaged, or holds anything else than a TorchScript file needs.
    """
    reader = _Reader(name)
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if number > MOST_OPCODES:
                raise Refusal(f"{name} is too long")
            if opcode.name == "STOP":
                if position != len(content) - 1:
                    raise Refusal(f"{name} goes on after its end")
                break
            reader.step(opcode.name, argument)
    except Refusal:
        raise
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
        """Do what an opcode says."""
        if opcode in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"):
            self.push_plain(argument)
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

    def push_plain(self, value: Any) -> None:
        """An integer, a float or a text."""
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Refusal(f"{self.name} holds an integer of more than 64 bits")
        self.stack.append(value)

    def pop(self, wanted: type) -> Any:
        """The topmost value, of a type."""
        value = self.stack.pop()
        if type(value) is not wanted:
            raise Refusal(f"{self.name} is damaged: {type(value).__name__} in place of {wanted.__name__}")
        return value

    def to_mark(self) -> list[Any]:
        """Values above the last mark."""
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
            or (module == "torch.jit._pickle" and (name in LISTS or name == "restore_type_tag"))
            or module == "__torch__"
            or module.startswith("__torch__.")
        )
        if not known:
            raise Refusal(f"{self.name} refers to {quoted(f'{module}.{name}')}")
        self.stack.append(_Global(module, name))

    def take_tuple(self, count: int) -> None:
        if count and any(value is MARK for value in self.stack[-count:]):
            raise Refusal(f"{self.name} is damaged: a mark in a tuple")
        if len(self.stack) < count:
            raise Refusal(f"{self.name} is damaged: a tuple of what is not there")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def new_object(self) -> None:
        arguments, known = self.pop(tuple), self.pop(_Global)
        if arguments or not known.module.startswith("__torch__"):
            raise Refusal(f"{self.name} makes an object of {quoted(f'{known.module}.{known.name}')}")
        self.stack.append(Instance(f"{known.module}.{known.name}"))

    def set_items(self) -> None:
        values = self.to_mark()
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise Refusal(f"{self.name} is damaged: items of what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str or key in target:
                raise Refusal(f"{self.name} sets the field {quoted(key)} twice or by no name")
            target[key] = value

    def build(self) -> None:
        state, target = self.pop(dict), self.stack[-1]
        if type(target) is not Instance or target.state is not None:
            raise Refusal(f"{self.name} sets the state of what is no new object")
        target.state = state

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not ListRecord or target.of is not None or any(v is MARK for v in values):
            raise Refusal(f"{self.name} is damaged: it appends to what is no list")
        target.items.extend(values)

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
        self.stack.append(Storage(dtype.name, key, count))

    def reduce(self) -> None:
        arguments, function = self.pop(tuple), self.pop(_Global)
        called = f"{function.module}.{function.name}"
        if called == "collections.OrderedDict" and not arguments:
            self.stack.append({})
        elif called == "torch._utils._rebuild_tensor_v2":
            self.stack.append(self.tensor(arguments))
        elif function.module == "torch.jit._pickle" and function.name in LISTS:
            self.stack.append(self.typed_list(arguments, LISTS[function.name]))
        elif called == "torch.jit._pickle.restore_type_tag":
            self.stack.append(self.tagged(arguments))
        else:
            raise Refusal(f"{self.name} calls {quoted(called)}")

    def tensor(self, arguments: tuple[Any, ...]) -> TensorRecord:
        """A tensor whose elements all lie in its storage."""
        if len(arguments) != 6:
            raise Refusal(f"{self.name} has a tensor of {len(arguments)} fields")
        storage, offset, size, stride, requires_grad, hooks = arguments
        if not (
            type(storage) is Storage
            and type(offset) is int
            and _is_extents(size)
            and _is_extents(stride)
            and len(size) == len(stride)
            and type(requires_grad) is bool
            and type(hooks) is dict
            and not hooks
        ):
            raise Refusal(f"{self.name} has a tensor that TorchScript does not write")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if offset < 0 or (0 not in size and last >= storage.count) or offset > storage.count:
            raise Refusal(f"{self.name} has a tensor that reaches beyond its storage")
        return TensorRecord(storage, offset, size, stride, requires_grad)

    def typed_list(self, arguments: tuple[Any, ...], of: str) -> ListRecord:
        if len(arguments) != 1 or type(arguments[0]) is not ListRecord:
            raise Refusal(f"{self.name} is damaged: a list of no list")
        return ListRecord(arguments[0].items, of)

    def tagged(self, arguments: tuple[Any, ...]) -> ListRecord:
        """A list written with its type, "List[str]"."""
        if len(arguments) != 2 or type(arguments[0]) is not ListRecord or type(arguments[1]) is not str:
            raise Refusal(f"{self.name} gives a type to what is no list")
        found = re.fullmatch(r"List\[(.{1,200})\]", arguments[1])
        if not found:
            raise Refusal(f"{self.name} has a value of type {quoted(arguments[1])}")
        return ListRecord(arguments[0].items, found[1])


def _is_extents(value: object) -> bool:
    return (
        type(value) is tuple
        and len(value) <= MOST_AXES
        and all(type(n) is int and 0 <= n < 2**40 for n in value)
    )


_CONSTANTS: dict[str, Any] = {
    "MARK": MARK,
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}


def _protocol(reader: _Reader, version: int) -> None:
    if version != 2:
        raise Refusal(f"{reader.name} is a pickle of protocol {version}")


_ACTIONS: dict[str, Any] = {
    "PROTO": _protocol,
    "GLOBAL": lambda reader, argument: reader.find_global(argument),
    "EMPTY_LIST": lambda reader, _: reader.stack.append(ListRecord([])),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.to_mark())),
    "TUPLE1": lambda reader, _: reader.take_tuple(1),
    "TUPLE2": lambda reader, _: reader.take_tuple(2),
    "TUPLE3": lambda reader, _: reader.take_tuple(3),
    "NEWOBJ": lambda reader, _: reader.new_object(),
    "SETITEMS": lambda reader, _: reader.set_items(),
    "BUILD": lambda reader, _: reader.build(),
    "APPEND": lambda reader, _: reader.append([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.append(reader.to_mark()),
    "BINPERSID": lambda reader, _: reader.persistent(),
    "REDUCE": lambda reader, _: reader.reduce(),
}


# -------------------------------------------------------------------------------------------------- writing


def write_pickle(value: Any, kind: Kind | None, fields: Fields, name: str) -> tuple[bytes, list[Storage]]:
    """The pickle of what was read, each value of the type that the code declares; and its storages.

    Parameters
    ----------
    value
        From `read_pickle`.
    kind
        Its type; None for a tuple of constants, whose types only they themselves tell.
    fields
        Of the archive's classes.
    name
        Of the member, for messages.

    Raises
    ------
    Refusal
        A value is not of its type, or contains itself.
    """
    writer = _Writer(fields, name)
    if kind is None:
        if type(value) is not tuple:
            raise Refusal(f"{name} is no tuple of constants")
        writer.out += b"("
        for item in value:
            writer.write(item, _own_kind(item, name), 1)
        writer.out += b"t"
    else:
        writer.write(value, kind, 0)
    return b"\x80\x02" + bytes(writer.out) + b".", list(writer.storages.values())


def _own_kind(value: Any, name: str) -> Kind:
    """The type of a constant: a tensor, a text, a number, or a list of such."""
    if type(value) is TensorRecord:
        return Kind("Tensor")
    if type(value) is ListRecord and value.of in ("int", "float", "bool", "Tensor", "str"):
        return Kind("List", (Kind(value.of),))
    for kind, python in PYTHON_TYPES.items():
        if type(value) is python:
            return Kind(kind)
    raise Refusal(f"{name} holds {quoted(type(value).__name__)} as a constant")


@dataclass
class _Writer:
    """Writes records as TorchScript does; what was one object in the file is one object again."""

    fields: Fields
    name: str
    out: bytearray = field(default_factory=bytearray)
    memo: dict[int, int] = field(default_factory=dict)
    storages: dict[int, Storage] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def remember(self, value: object) -> None:
        number = self.memo[id(value)] = len(self.memo)
        self.out += b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def recalled(self, value: object) -> bool:
        """Write a reference to what was written before; whether it was."""
        number = self.memo.get(id(value))
        if number is None:
            return False
        self.out += b"h" + bytes([number]) if number < 256 else b"j" + struct.pack("<I", number)
        return True

    def write(self, value: Any, kind: Kind, depth: int) -> None:
        """A value, if it is of its type."""
        if depth > DEEPEST or len(self.out) > MOST_BYTES:
            raise Refusal(f"{self.name} nests values too deeply or too often")
        if kind.name == "Optional":
            kind = Kind("NoneType") if value is None else kind.of[0]
        if kind.is_class:
            self.write_instance(value, kind, depth)
        elif kind.name == "Tensor" and type(value) is TensorRecord:
            self.write_tensor(value)
        elif kind.name == "List" and type(value) is ListRecord:
            self.write_list(value, kind, depth)
        elif kind.name == "Tuple" and type(value) is tuple and len(value) == len(kind.of):
            self.out += b"("
            for item, of in zip(value, kind.of, strict=True):
                self.write(item, of, depth + 1)
            self.out += b"t"
        elif kind.name in PYTHON_TYPES and type(value) is PYTHON_TYPES[kind.name]:
            self.write_plain(value)
        else:
            found = quoted(type(value).__name__)
            raise Refusal(f"{self.name} holds {found} where its code says {quoted(str(kind))}")

    def write_plain(self, value: Any) -> None:
        if value is None:
            self.out += b"N"
        elif type(value) is bool:
            self.out += b"\x88" if value else b"\x89"
        elif type(value) is float:
            self.out += b"G" + struct.pack(">d", value)
        elif type(value) is str:
            text = value.encode("utf-8", errors="surrogatepass")
            self.out += b"X" + struct.pack("<I", len(text)) + text
        elif -(2**31) <= value < 2**31:
            self.out += b"J" + struct.pack("<i", value)
        else:
            self.out += b"\x8a\x08" + struct.pack("<q", value)

    def write_global(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode("ascii")

    def write_storage(self, storage: Storage) -> None:
        if self.recalled(storage):
            return
        self.out += b"("
        self.write_plain("storage")
        self.write_global("torch", storage.dtype)
        self.write_plain(storage.key)
        # Models are loaded to the CPU, wherever they were saved from.
        self.write_plain("cpu")
        self.write_plain(storage.count)
        self.out += b"tQ"
        self.remember(storage)
        self.storages[id(storage)] = storage

    def write_tensor(self, tensor: TensorRecord) -> None:
        if self.recalled(tensor):
            return
        self.write_global("torch._utils", "_rebuild_tensor_v2")
        self.out += b"("
        self.write_storage(tensor.storage)
        self.write_plain(tensor.offset)
        for extents in (tensor.size, tensor.stride):
            self.out += b"("
            for n in extents:
                self.write_plain(n)
            self.out += b"t"
        self.write_plain(tensor.requires_grad)
        self.write_global("collections", "OrderedDict")
        self.out += b")RtR"
        self.remember(tensor)

    def write_list(self, value: ListRecord, kind: Kind, depth: int) -> None:
        of = kind.of[0]
        if value.of is not None and value.of != str(of):
            raise Refusal(
                f"{self.name} holds a list of {quoted(value.of)} where its code says {quoted(str(of))}"
            )
        if self.recalled(value):
            return
        # From now on it is a list of that: elsewhere it cannot pass for one of another type.
        value.of = str(of)
        builder = next((name for name, element in LISTS.items() if element == of.name), None)
        self.write_global("torch.jit._pickle", builder or "restore_type_tag")
        self.out += b"(]("
        for item in value.items:
            self.write(item, of, depth + 1)
        self.out += b"e"
        if builder is None:
            self.write_plain(str(kind))
        self.out += b"tR"
        self.remember(value)

    def write_instance(self, value: Any, kind: Kind, depth: int) -> None:
        if type(value) is not Instance or value.class_name != kind.name:
            raise Refusal(f"{self.name} holds no object of {quoted(kind.name)} where its code says so")
        if id(value) in self.open:
            raise Refusal(f"{self.name} holds an object that contains itself")
        if self.recalled(value):
            return
        declared, state = self.fields.get(kind.name), value.state
        if declared is None or state is None or set(state) != set(declared):
            raise Refusal(f"{self.name} does not give {quoted(kind.name)} the fields that its code declares")
        self.open.add(id(value))
        self.write_global(*kind.name.rsplit(".", 1))
        self.out += b")\x81}("
        for name, of in declared.items():
            self.write_plain(name)
            self.write(state[name], of, depth + 1)
        self.out += b"ub"
        self.remember(value)
        self.open.remove(id(value))


def storages_of(storages: list[Storage], folder: str, members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members that storages lie in, each as long as its storage says.

    Raises
    ------
    Refusal
        One is missing or of another length.
    """
    found: dict[str, bytes] = {}
    for storage in storages:
        name = f"{folder}/{storage.key}"
        content = members.get(name)
        if content is None:
            raise Refusal(f"its tensor {quoted(name)} is missing")
        if len(content) != storage.count * STORAGES[storage.dtype]:
            raise Refusal(
                f"its tensor {quoted(name)} is {len(content)} bytes long and should be "
                f"{storage.count * STORAGES[storage.dtype]}"
            )
        found[name] = content
    return found
