"""Edits of what an archive holds besides its code: fields, tensors, storages, constants, members.

Each edit takes a random generator and an archive, changes it, and says what it did; None if it did not apply.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from archive_tree import ABSENT, Archive, Call, Global, Object, Persistent, Raw, walk

Edit = Callable[[random.Random, Archive], "str | None"]

ESCAPE = "\x1b]0;PWNED\x07\x1b[2J"
BAD_INTEGERS = (-1, 0, 1, 7, -(2**63), 2**63 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63, 2**64, 10**30)
BAD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**40, 2**70, 0.5, float("nan"), float("inf"), "", "zeros", ESCAPE,
    "\ud800", "x" * 5000,
    (), [], {}, (0, 0), [0, 0], (1, (2, (3,))), Raw(b"(" * 3000 + b"t" * 3000),
    Raw(b"]" * 3000 + b"a" * 2999),
    Raw(b"]r\xff\xff\x00\x00j\xff\xff\x00\x00a"), Raw(b"}(X\x01\x00\x00\x00akkK\x01u"), Raw(b"h\xff"),
    Raw(b"j\xff\xff\xff\xff"),
    Raw(b"Nr\xff\xff\xff\xff"), Raw(b"0"), Raw(b"t"),
    Raw(b"cposix\nsystem\n(X\x0b\x00\x00\x00touch canarytR"),
    Raw(b"\x8b\xff\xff\xff\x7f"), Raw(b"X\xff\xff\xff\x7f"), Raw(b"B\xff\xff\xff\x7f"), Raw(b"I12\n"),
    Raw(b"\x8c\x01a"),
    Raw(b"(K\x01K\x02o"), Raw(b"K\x012"), Raw(b"Nb"), Raw(b"\x80\x05N"), Raw(b"cbuiltins\neval\n"),
)  # fmt: skip


def _tensor(rng: random.Random, archive: Archive) -> Call | None:
    """A tensor whose description earlier edits left whole."""
    whole = [
        tensor
        for tensor in archive.tensors()
        if len(tensor.arguments) >= 4
        and isinstance(tensor.arguments[0], Persistent)
        and len(tensor.arguments[0].parts) == 5
        and isinstance(tensor.arguments[0].parts[4], int)
        and isinstance(tensor.arguments[2], tuple)
        and isinstance(tensor.arguments[3], tuple)
        and all(isinstance(n, int) for n in tensor.arguments[2] + tensor.arguments[3])
    ]
    return rng.choice(whole) if whole else None


def _object(rng: random.Random, archive: Archive) -> Object | None:
    """An object whose description earlier edits left whole."""
    whole = [thing for thing in archive.objects() if isinstance(thing.fields, dict) and thing.fields]
    return rng.choice(whole) if whole else None


def _edit_shape(rng: random.Random, archive: Archive) -> str | None:
    """Sizes and strides that the storage does not hold, overlap, run backwards, or are not numbers."""
    tensor = _tensor(rng, archive)
    if tensor is None:
        return None
    _, offset, size, stride = tensor.arguments[:4]
    what = rng.choice(
        [
            "huge with stride 0",
            "stride 0",
            "negative stride",
            "overlapping",
            "rank",
            "longer",
            "offset",
            "size",
            "kind",
        ]
    )
    if what == "huge with stride 0":
        size = tuple(
            rng.choice([2**20, 2**31, 2**40, 2**62]) if k == 0 else n for k, n in enumerate(size or (1,))
        )
        stride = (0,) * len(size)
    elif what == "stride 0":
        stride = (0,) * len(size)
    elif what == "negative stride":
        stride, offset = (
            tuple(-s for s in stride),
            sum((n - 1) * s for n, s in zip(size, stride, strict=False)),
        )
    elif what == "overlapping":
        stride = tuple(max(1, s // 2) for s in stride)
    elif what == "rank":
        size, stride = rng.choice(
            [((), ()), ((*size, 1), (*stride, 1)), (size, stride[1:]), (size[1:], stride)]
        )
    elif what == "longer":
        size = tuple(n + 1 if rng.random() < 0.5 else n for n in size)
    elif what == "offset":
        offset = rng.choice(BAD_INTEGERS)
    elif what == "size" and size:
        k = rng.randrange(len(size))
        size = (*size[:k], rng.choice([*BAD_INTEGERS, 0.5, True, None, "3"]), *size[k + 1 :])
    else:
        size = rng.choice([list(size), None, "33", 3, 2.0, {}, (1,) * 1000])
    tensor.arguments[1:4] = [offset, size, stride]
    return f"tensor: {what}"


def _transpose(rng: random.Random, archive: Archive) -> str | None:
    """A parameter that is not contiguous, as honest files can hold it."""
    tensor = _tensor(rng, archive)
    if tensor is None or len(tensor.arguments[2]) < 2:
        return None
    size = tensor.arguments[2]
    stride, step = [0] * len(size), 1
    for k in range(len(size)):
        stride[k] = step
        step *= size[k]
    tensor.arguments[3] = tuple(stride)
    return "tensor: transposed strides"


def _edit_storage(rng: random.Random, archive: Archive) -> str | None:
    """Types, keys, devices and lengths of storages that are wrong, or shared with another tensor."""
    tensor = _tensor(rng, archive)
    if tensor is None:
        return None
    parts = list(tensor.arguments[0].parts)
    what = rng.choice(["type", "key", "device", "length", "shared", "tag", "parts", "none"])
    if what == "type":
        names = "Double Half BFloat16 Long Int Short Char Byte Bool ComplexFloat QInt8 Untyped Quantised"
        parts[1] = Global(
            rng.choice(["torch", "torch", "torch", "builtins"]), rng.choice(names.split()) + "Storage"
        )
    elif what == "key":
        parts[2] = rng.choice(["99", "", "../data.pkl", "0/../1", "\0", ESCAPE, 0, None, "0" * 5000, "-1"])
    elif what == "device":
        parts[3] = rng.choice(
            ["cuda:0", "meta", "", "cpu:99999999999", ESCAPE, "mkldnn", None, 0, "privateuseone"]
        )
    elif what == "length":
        parts[4] = rng.choice([*BAD_INTEGERS, parts[4] + 1, parts[4] - 1, float(parts[4]), None, "5"])
    elif what == "shared":
        other = _tensor(rng, archive)
        if other is not None:
            parts[2] = other.arguments[0].parts[2]
    elif what == "tag":
        parts[0] = rng.choice(["module", "", "storages", 1, None])
    elif what == "parts":
        parts = rng.choice([parts[:4], [*parts, None], [], [parts]])
    else:
        tensor.arguments[0] = rng.choice(BAD_VALUES)
        return "storage: another value"
    tensor.arguments[0] = Persistent(parts)
    return f"storage: {what}"


def _edit_tensor_call(rng: random.Random, archive: Archive) -> str | None:
    """Other ways to build a tensor, and other arguments of the honest one."""
    tensor = _tensor(rng, archive)
    if tensor is None:
        return None
    if rng.random() < 0.5:
        tensor.arguments[4:] = rng.choice(
            [
                [True],
                [],
                [2, {}],
                [None, None],
                [True, {}, {"conj": True}],
                [False, {"a": 1}],
                [False, [], 1, 2, 3],
            ]
        )
        return "tensor: other arguments"
    module, name = rng.choice(
        [
            ("torch._utils", "_rebuild_qtensor"),
            ("torch._utils", "_rebuild_sparse_tensor"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch._utils", "_rebuild_tensor_v3"),
            ("torch", "_rebuild_tensor_v2"),
            ("torch.jit._pickle", "build_intlist"),
            ("torch.jit._pickle", "restore_type_tag"),
            ("builtins", "eval"),
            ("collections", "OrderedDict"),
        ]
    )
    tensor.function = Global(module, name)
    return f"tensor: built by {name}"


def _edit_numbers(rng: random.Random, archive: Archive) -> str | None:
    """Weights that are NaN, infinite, huge or denormal; storages cut short, grown, empty or missing."""
    names = [name for name in archive.others if name.startswith(("archive/data/", "archive/constants/"))]
    if not names:
        return None
    name = rng.choice(names)
    content = archive.others[name]
    what = rng.choice(["nan", "inf", "huge", "denormal", "short", "long", "empty", "missing", "bytes"])
    if what == "missing":
        del archive.others[name]
    elif what in ("short", "long", "empty"):
        archive.others[name] = {"short": content[:-1], "long": content + b"\0" * 64, "empty": b""}[what]
    elif what == "bytes":
        archive.others[name] = rng.randbytes(len(content))
    else:
        value = {"nan": float("nan"), "inf": float("inf"), "huge": 3e38, "denormal": 1e-42}[what]
        archive.others[name] = struct.pack("<f", value) * (len(content) // 4)
    return f"numbers: {what}"


def _edit_field(rng: random.Random, archive: Archive) -> str | None:
    """A field of another value or type, missing, added, renamed, or of another object."""
    thing = _object(rng, archive)
    if thing is None:
        return None
    fields = thing.fields
    name = rng.choice(list(fields))
    what = rng.choice(
        ["value", "value", "missing", "added", "renamed", "swapped", "training", "cycle", "shared"]
    )
    if what == "value":
        fields[name] = rng.choice(BAD_VALUES)
    elif what == "missing":
        del fields[name]
    elif what == "added":
        fields[rng.choice(["extra", "forward", "__class__", "__dict__", "", ESCAPE, "0", 5])] = rng.choice(
            BAD_VALUES
        )
    elif what == "renamed":
        fields[rng.choice(["weight2", "self", "training ", ESCAPE])] = fields.pop(name)
    elif what == "swapped":
        other = rng.choice(list(fields))
        fields[name], fields[other] = fields[other], fields[name]
    elif what == "training":
        fields["training"] = True
    elif what == "cycle":
        fields[name] = archive.data
        if isinstance(archive.data, Object):
            # The object does not exist yet where it refers to itself.
            fields[name] = Raw(b"]r\x00\xff\x00\x00j\x00\xff\x00\x00a")
    else:
        fields[name] = rng.choice([thing, _object(rng, archive), _tensor(rng, archive)])
        if _holds_itself(archive.data):
            return _undo(fields, name)
    return f"field {name!r}: {what}"


def _holds_itself(tree: Any) -> bool:
    """Whether an object is inside itself, which cannot be written."""
    inside: set[int] = set()

    def visit(node: Any) -> bool:
        if not isinstance(node, (Object, Call, dict, list, tuple)):
            return False
        if id(node) in inside:
            return True
        inside.add(id(node))
        parts: Any = node
        if isinstance(node, Object):
            parts = [node.fields]
        elif isinstance(node, Call):
            parts = node.arguments
        found = any(visit(part) for part in (parts.values() if isinstance(parts, dict) else parts))
        inside.discard(id(node))
        return found

    return visit(tree)


def _undo(fields: dict[Any, Any], name: Any) -> str:
    fields[name] = None
    return f"field {name!r}: none"


def _edit_class(rng: random.Random, archive: Archive) -> str | None:
    """An object of another class, or of a class whose name is none."""
    thing, other = _object(rng, archive), _object(rng, archive)
    if thing is None or other is None or not isinstance(other.type, Global):
        return None
    module, name = rng.choice(
        [
            ("__torch__", "Nothing"),
            ("torch", "FloatStorage"),
            ("__torch__", ""),
            ("", "LeNet"),
            ("os", "system"),
            ("__torch__", ESCAPE),
            ("__torch__.\N{LATIN SMALL LETTER E WITH ACUTE}", "A"),
            ("__torch__" + ".a" * 2000, "B"),
            ("__torch__.torch.classes.quantized", "Conv2dPackedParamsBase"),
            ("__torch__", "forward"),
            ("__torch__.torch", "relu"),
            (other.type.module, other.type.name),
            (other.type.module, other.type.name),
        ]
    )  # fmt: skip
    thing.type = Global(module, name)
    return f"class of an object: {module}.{name}"[:80]


def _edit_constants(rng: random.Random, archive: Archive) -> str | None:
    """Constants that are fewer, more, of other types, or no list."""
    if archive.constants is ABSENT:
        return None
    present = archive.constants if isinstance(archive.constants, list | tuple) else ()
    archive.constants = rng.choice(
        [(), [], None, ABSENT, (None,) * 5, (1, 2.0, "a"), {"c0": 1}, (archive.constants,),
        tuple(reversed(present)),
         tuple(present) * 3, Raw(b"(" * 50000 + b"t" * 50000), rng.choice(BAD_VALUES)]
    )  # fmt: skip
    return "constants"


def _edit_root(rng: random.Random, archive: Archive) -> str | None:
    """A pickle of something else than one module."""
    root = archive.data
    archive.data = rng.choice(
        [[root], (root,), {"a": root}, None, ABSENT, Call(root, []), Object(root, {}),
        Call(Global("__torch__", "A"), [root]),
         Raw(b"]" * 100_000), Raw(b"N" * 1000 + b"(" * 50_000 + b"t"), list(walk(root))[-1]]
    )  # fmt: skip
    return "root of the pickle"


def _edit_members(rng: random.Random, archive: Archive) -> str | None:
    """Members that are missing, doubled, or hold versions, byte orders and metadata that are none."""
    name = rng.choice(
        [
            "version",
            "byteorder",
            "extra/t3ssfast.json",
            ".format_version",
            "doubled",
            "folder",
            "code",
            "bomb",
        ]
    )
    values = {
        "version": [b"", b"0", b"-1", b"99999999999999999999", b"3\n", b"abc", b"\xff", b"1" * 10_000],
        "byteorder": [b"big", b"", b"LITTLE", b"\0" * 100],
        ".format_version": [b"", b"99"],
        "extra/t3ssfast.json": [
            b"", b"{", b"null", b"[" * 100_000, b'{"format": 99}', b'{"kind": "\\u001b[2J"}',
            b'{"window_px": 1e308}',
            b'{"kind": "classifier", "window_px": 1e9}', b'{"model_kind": "segmenter", "slices": -1}',
            b'{"kind": "classifier", "classes": [' + b'"a",' * 50_000 + b'"b"]}',
            b'{"a": ' * 3000 + b"1" + b"}" * 3000,
            b'{"kind": "classifier", "window_px": 4096}', b'{"n": ' + b"9" * 10_000 + b"}",
        ],
    }  # fmt: skip
    if name in values:
        archive.others[f"archive/{name}"] = rng.choice(values[name])
    elif name == "doubled":
        archive.appended.append(rng.choice(list(archive.others.items())))
        archive.appended.append(("archive/data.pkl", b"\x80\x02N."))
    elif name == "folder":
        archive.appended.append(
            (rng.choice(["../canary", "/canary", "archive/../../canary", "other/data.pkl", "a\0b"]), b"")
        )
    elif name == "code":
        chosen = rng.choice(list(archive.code))
        archive.code[
            rng.choice([chosen.replace("torch", "t\N{LATIN SMALL LETTER O WITH ACUTE}rch"), chosen + ".py"])
        ] = "x"
        archive.code[chosen] = rng.choice(
            ["", "\0", "\ufeff" + archive.code[chosen], archive.code[chosen].replace("\n", "\r\n")]
        )
    else:
        archive.others["archive/data/extra"] = b"\0" * 30_000_000
        archive.deflated = ("data/extra",)
    return f"member: {name}"


EDITS: tuple[Edit, ...] = (
    _edit_shape, _edit_shape, _edit_storage, _edit_storage, _edit_tensor_call, _edit_numbers, _edit_field,
    _edit_field,
    _edit_class, _edit_constants, _edit_root, _edit_members,
)  # fmt: skip
HARMLESS: tuple[Edit, ...] = (_transpose,)
