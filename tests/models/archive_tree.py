"""TorchScript archives as trees of Python objects, to be edited in any way and written again.

Reading is for honest archives of our own making: it uses `pickle`, with every name replaced by a description.
Writing takes any tree, however wrong.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MANGLED = re.compile(r"___torch_mangle_(\d+)")
REBUILD = ("torch._utils", "_rebuild_tensor_v2")


@dataclass
class Global:
    """A name that the pickle looks up; called by the unpickler, it describes the call."""

    module: str
    name: str

    def __call__(self, *arguments: Any) -> Call:
        return Call(self, list(arguments))


@dataclass
class Call:
    """A call (REDUCE) of a name with arguments: a tensor, a typed list, a dictionary."""

    function: Any
    arguments: list[Any]

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.function, Global) and (self.function.module, self.function.name) == REBUILD


@dataclass
class Persistent:
    """A persistent identifier: ("storage", type, key, device, number of elements)."""

    parts: list[Any]


@dataclass
class Object:
    """An object of a TorchScript class."""

    type: Any
    fields: dict[Any, Any]


@dataclass
class Raw:
    """Pickle opcodes as they are."""

    opcodes: bytes


class Reader(pickle.Unpickler):
    """Describe a pickle instead of building what it says."""

    def find_class(self, module: str, name: str) -> Any:
        description = Global(module, name)
        if not module.startswith("__torch__"):
            return description
        # NEWOBJ wants a class; BUILD gives its instances their fields.
        return type(name, (_Instance,), {"description": description})

    def persistent_load(self, identifier: Any) -> Persistent:
        return Persistent(list(identifier))


class _Instance:
    description: Global
    fields: dict[Any, Any]

    def __setstate__(self, fields: dict[Any, Any]) -> None:
        self.fields = fields


def read_pickle(content: bytes) -> Any:
    """Describe a pickle. Equal objects of the memo stay one object."""
    done: dict[int, Any] = {}

    def clean(value: Any) -> Any:
        if id(value) in done:
            return done[id(value)]
        made: Any = value
        if isinstance(value, _Instance):
            made = done[id(value)] = Object(value.description, {})
            made.fields = {clean(k): clean(v) for k, v in value.fields.items()}
        elif isinstance(value, Call):
            made = done[id(value)] = Call(value.function, [])
            made.arguments = [clean(v) for v in value.arguments]
        elif isinstance(value, Persistent):
            made = Persistent([clean(v) for v in value.parts])
        elif isinstance(value, (list, tuple)):
            made = type(value)(clean(v) for v in value)
        elif isinstance(value, dict):
            made = {clean(k): clean(v) for k, v in value.items()}
        return made

    return clean(Reader(io.BytesIO(content)).load())


def write_pickle(tree: Any) -> bytes:
    """Write a tree with the opcodes that TorchScript uses."""
    out = bytearray(b"\x80\x02")
    memo: dict[int, int] = {}

    def emit(value: Any) -> None:
        if isinstance(value, (Object, Call)):
            if id(value) in memo:
                out.extend(b"j" + struct.pack("<I", memo[id(value)]))
                return
            if isinstance(value, Object):
                emit(value.type)
                out.extend(b")\x81")
                emit(value.fields)
                out.extend(b"b")
            else:
                emit(value.function)
                emit(tuple(value.arguments))
                out.extend(b"R")
            memo[id(value)] = len(memo)
            out.extend(b"r" + struct.pack("<I", memo[id(value)]))
        elif isinstance(value, Raw):
            out.extend(value.opcodes)
        elif isinstance(value, Global):
            out.extend(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Persistent):
            emit(tuple(value.parts))
            out.extend(b"Q")
        elif isinstance(value, (tuple, list, dict)):
            flat = [part for item in value.items() for part in item] if isinstance(value, dict) else value
            out.extend({tuple: b"(", list: b"](", dict: b"}("}[type(value)])
            for item in flat:
                emit(item)
            out.extend({tuple: b"t", list: b"e", dict: b"u"}[type(value)])
        else:
            out.extend(scalar(value))

    emit(tree)
    return bytes(out) + b"."


def scalar(value: bool | int | float | str | None) -> bytes:
    """Opcodes of a scalar."""
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if 0 <= value < 256:
            return b"K" + bytes([value])
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        size = value.bit_length() // 8 + 1
        head = b"\x8a" + bytes([size]) if size < 256 else b"\x8b" + struct.pack("<I", size)
        return head + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def unbuilt_object(cls: str, fields: dict[Any, Any]) -> Object:
    """An object of a class with a dotted name."""
    module, _, name = cls.rpartition(".")
    return Object(Global(module, name), fields)


@dataclass
class Archive:
    """An archive: code by member name, the module, the constants, and all other members."""

    code: dict[str, str]
    data: Any
    constants: Any
    others: dict[str, bytes]
    # Members that are written after the others, also under names that exist.
    appended: list[tuple[str, bytes]] = field(default_factory=list)
    # Endings of the names of members that are compressed. PyTorch compresses code.
    deflated: tuple[str, ...] = ()

    def copy(self) -> Archive:
        return copy.deepcopy(self)

    def to_bytes(self) -> bytes:
        """Write the archive with correct checksums."""
        members = {name: text.encode("utf-8", "surrogatepass") for name, text in self.code.items()}
        pickles = {"archive/data.pkl": self.data, "archive/constants.pkl": self.constants}
        pickled = {name: write_pickle(tree) for name, tree in pickles.items() if tree is not ABSENT}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as target, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name")
            for name, member in [*(pickled | self.others | members).items(), *self.appended]:
                entry = zipfile.ZipInfo(name)
                if self.deflated and name.endswith(self.deflated):
                    entry.compress_type = zipfile.ZIP_DEFLATED
                target.writestr(entry, member)
        return content.getvalue()

    def tensors(self) -> list[Call]:
        """All tensors of the module and the constants."""
        return [
            node for node in walk([self.data, self.constants]) if isinstance(node, Call) and node.is_tensor
        ]

    def objects(self) -> list[Object]:
        """The module and its submodules."""
        return [node for node in walk(self.data) if isinstance(node, Object)]


# Stands for a pickle that is not written.
ABSENT = object()


def walk(tree: Any) -> Iterator[Any]:
    """All nodes of a tree, each once."""
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Object):
            waiting.extend(reversed(node.fields.values()))
        elif isinstance(node, Call):
            waiting.extend(reversed(node.arguments))
        elif isinstance(node, (list, tuple)):
            waiting.extend(reversed(node))
        elif isinstance(node, dict):
            waiting.extend(reversed(node.values()))


def read_archive_tree(content: bytes) -> Archive:
    """Read an honest archive; the numbers of its mangled names become 0, 1, 2, ... in any process."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = {name: source.read(name) for name in source.namelist() if not name.endswith(".debug_pkl")}
    # Archives are named after their files.
    top = next(iter(members)).split("/")[0]
    members = {"archive" + name.removeprefix(top): member for name, member in members.items()}
    numbers: dict[str, int] = {}
    for name in sorted(members, key=lambda name: ([int(n) for n in MANGLED.findall(name)], name)):
        for number in MANGLED.findall(name):
            numbers.setdefault(number, len(numbers))

    def plain(text: str) -> str:
        return MANGLED.sub(
            lambda found: f"___torch_mangle_{numbers.setdefault(found[1], len(numbers))}", text
        )

    def tree(name: str) -> Any:
        # The names of classes end with a line feed and no length is stored, so that they may change.
        return read_pickle(plain(members.pop(name).decode("latin-1")).encode("latin-1"))

    data, constants = tree("archive/data.pkl"), tree("archive/constants.pkl")
    code = {plain(name): plain(members.pop(name).decode()) for name in list(members) if name.endswith(".py")}
    members["archive/.data/serialization_id"] = b"0" * 40
    return Archive(code, data, constants, members)
