"""Fixed hostile model files whose fields, tensors or members are edited, from an honest LeNet."""

from __future__ import annotations

import struct
from collections.abc import Callable

from archive_bases import lenet_archive
from archive_tree import Archive, Call, Global, Persistent, Raw
from hostile_code import CODE, HERE, Make


def edited(edit: Callable[[Archive], None]) -> Make:
    def make() -> bytes:
        archive = lenet_archive()
        edit(archive)
        return archive.to_bytes()

    return make


def change_tensor(number: int, **arguments: object) -> Callable[[Archive], None]:
    positions = {"storage": 0, "offset": 1, "size": 2, "stride": 3, "requires_grad": 4}

    def edit(archive: Archive) -> None:
        tensor = archive.tensors()[number]
        for name, value in arguments.items():
            tensor.arguments[positions[name]] = value

    return edit


def change_storage(number: int, part: int, value: object) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        storage = archive.tensors()[number].arguments[0]
        parts = list(storage.parts)
        parts[part] = value
        archive.tensors()[number].arguments[0] = Persistent(parts)

    return edit


def all_numbers(value: float) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        for name in list(archive.others):
            if name.startswith("archive/data/"):
                archive.others[name] = struct.pack("<f", value) * (len(archive.others[name]) // 4)

    return edit


def set_field(name: str, value: object) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        archive.data.fields[name] = value

    return edit


def set_root(value: object) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        archive.data = value

    return edit


def set_member(name: str, content: bytes, *, deflated: bool = False) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        archive.others[f"archive/{name}"] = content
        archive.deflated = (name,) if deflated else ()

    return edit


def set_class(module: str, name: str) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        archive.data.type = Global(module, name)

    return edit


def double_members(archive: Archive) -> None:
    archive.appended = [(name, b"\x80\x02N.") for name in ("archive/data.pkl", "archive/constants.pkl")]


def setstate(archive: Archive) -> None:
    archive.code[CODE] += (
        f"  def __setstate__(self: {HERE}.LeNet, s: Tuple[Tensor, bool]) -> NoneType:\n"
        '    torch.save([1], "canary")\n    return None\n'
    )


PICKLES: dict[str, Make] = {
    "escapes in metadata": edited(
        set_member("extra/t3ssfast.json", b'{"kind": "\\u001b]0;PWNED\\u0007\\u001b[2J"}')
    ),
    "escapes in a member's name": edited(set_member("\x1b]0;PWNED\x07\x1b[2J.py", b"x")),
    "escapes in a class": edited(set_class("__torch__", "\x1b]0;PWNED\x07\x1b[2J")),
    "file written on loading": edited(setstate),
    "elements without storage": edited(change_tensor(0, size=(2**40, 1, 5, 5), stride=(0, 0, 0, 0))),
    "elements beyond the storage": edited(change_tensor(0, offset=2**40)),
    "elements before the storage": edited(change_tensor(0, offset=-100)),
    "negative strides": edited(change_tensor(0, stride=(-25, 25, -5, -1), offset=49)),
    "overflowing size": edited(change_tensor(0, size=(2**62, 4, 1, 1), stride=(1, 1, 1, 1))),
    "no rank": edited(change_tensor(0, size=(), stride=())),
    "thousand axes": edited(change_tensor(0, size=(1,) * 1000, stride=(1,) * 1000)),
    "storage of another length": edited(change_storage(0, 4, 2**40)),
    "storage of another type": edited(change_storage(0, 1, Global("torch", "QInt8Storage"))),
    "storage of another name": edited(change_storage(0, 2, "../version")),
    "storage on another device": edited(change_storage(0, 3, "meta")),
    "weights NaN": edited(all_numbers(float("nan"))),
    "weights infinite": edited(all_numbers(float("inf"))),
    "pickle cycle": edited(set_field("features", Raw(b"]r\x00\xff\x00\x00j\x00\xff\x00\x00a"))),
    "pickle depth": edited(set_field("features", Raw(b"(" * 200_000 + b"t" * 200_000))),
    "pickle of lists": edited(set_root(Raw(b"]" * 500_000 + b"a" * 499_999))),
    "pickle memo": edited(set_field("features", Raw(b"Nr\xff\xff\xff\xff"))),
    "pickle length": edited(set_field("features", Raw(b"\x8b\xff\xff\xff\x7f"))),
    "pickle doubling": edited(
        set_field(
            "features",
            Raw(
                b"(Nt"
                + b"".join(
                    b"r"
                    + struct.pack("<I", 70_000 + k)
                    + b"(j"
                    + struct.pack("<I", 70_000 + k)
                    + b"j"
                    + struct.pack("<I", 70_000 + k)
                    + b"t"
                    for k in range(60)
                )
            ),
        )
    ),
    "pickle calls": edited(set_root(Call(Global("posix", "system"), ["touch canary"]))),
    "metadata depth": edited(set_member("extra/t3ssfast.json", b"[" * 1_000_000)),
    "metadata length": edited(
        set_member("extra/t3ssfast.json", b'{"a": [' + b"0," * 20_000_000 + b"0]}", deflated=True)
    ),
    "zip bomb": edited(set_member("data/extra", b"\0" * 300_000_000, deflated=True)),
    "doubled members": edited(double_members),
    "version": edited(set_member("version", b"9" * 1000)),
}
