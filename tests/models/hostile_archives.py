"""Fixed hostile model files, made from an honest LeNet by editing its code or its pickles."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable

from archive_bases import lenet_archive
from archive_tree import Archive, Call, Global, Object, Persistent, Raw, unbuilt_object

CODE = "archive/code/__torch__/t3ssfast/models/lenet.py"
HERE = "__torch__.t3ssfast.models.lenet"
SEQUENTIAL = "__torch__.torch.nn.modules.container.___torch_mangle_3.Sequential"
# The line of forward before which statements are inserted.
LINE = "    classifier = self.classifier\n"
USE = "windows = torch.mul(windows, torch.add(1, torch.mul(torch.dim(_0), 0)))"
ESCAPE = "\\033]0;PWNED\\007\\033[2J"

Make = Callable[[], bytes]


def with_code(statements: str = "", definitions: str = "", *, used: bool = True) -> Archive:
    """The LeNet with statements in its forward, of which `_0` is used, and definitions after its class."""
    archive = lenet_archive()
    text = archive.code[CODE]
    lines = [line for line in statements.split("\n") if line] + (
        [USE] if used and "_0 = " in statements else []
    )
    inserted = "".join(f"    {line}\n" for line in lines)
    if LINE not in text:
        raise ValueError("the LeNet's code has changed")
    archive.code[CODE] = text.replace(LINE, inserted + LINE) + definitions
    return archive


def code(statements: str = "", definitions: str = "", *, used: bool = True, deflated: bool = False) -> Make:
    def make() -> bytes:
        archive = with_code(statements, definitions, used=used)
        if deflated:
            archive.compression = zipfile.ZIP_DEFLATED
        return archive.to_bytes()

    return make


def edited(edit: Callable[[Archive], None]) -> Make:
    def make() -> bytes:
        archive = lenet_archive()
        edit(archive)
        return archive.to_bytes()

    return make


# ---------------------------------------------------------------------------------- objects taken for others

# Put an object of one class where another class is expected, by a container that is cast and stays the same
# container. {a} and {b} are the objects, {cast} the container.
CONFUSIONS = {
    "list of lists": (
        "_o = [[{a}]]\n_c = unchecked_cast(List[List[int]], _o)\n_d = unchecked_cast(List[int], [{b}])\n"
        "_e = torch.append(_c, _d)\n_p = ((_o)[1])[0]"
    ),
    "dictionary": (
        '_o = {{"a": [{a}]}}\n_c = unchecked_cast(Dict[str, List[int]], _o)\n'
        '_d = unchecked_cast(List[int], [{b}])\ntorch._set_item(_c, "b", _d)\n_p = ((_o)["b"])[0]'
    ),
    "list of optionals": (
        "_o = [[{a}]]\n_c = unchecked_cast(List[List[Optional[int]]], _o)\n"
        "_d = unchecked_cast(List[Optional[int]], [{b}])\n_e = torch.append(_c, _d)\n_p = ((_o)[1])[0]"
    ),
    "list of tuples": (
        "_o = [({a}, 1)]\n_c = unchecked_cast(List[Tuple[int, int]], _o)\n"
        "_d = unchecked_cast(Tuple[int, int], ({b}, 1))\n_e = torch.append(_c, _d)\n_p = ((_o)[1])[0]"
    ),
}
PICK = """
def pick(x: {cls}, w: Tensor) -> Tensor:
  _5 = getattr(x, "5")
  _6 = (_5).forward(torch.ones([1, 6]))
  return torch.mul(w, torch.add(1, torch.mul(torch.dim(_6), 0)))
"""


def confusion(how: str) -> Make:
    """Read a field of a ReLU that only a Sequential has: out of the range of its fields."""
    statements = 'cl = self.classifier\nrelu = getattr(cl, "2")\n' + CONFUSIONS[how].format(a="cl", b="relu")
    return code(f"{statements}\nwindows = {HERE}.pick(_p, windows)", PICK.format(cls=SEQUENTIAL))


def field_confusion(how: str, fields: int, *, leak: bool) -> Make:
    """Take an object of few fields for one with many, and read the last: in range, or beyond."""

    def make() -> bytes:
        action = "x = torch.add(torch.mul(torch.sum(b.last), 0), x)"
        if leak:
            action = 'ops.prim.RaiseException(torch.format("LEAKED {}", torch.item(torch.sum(b.last))), "builtins.ValueError")'
        names = [f"f{k}" for k in range(fields)]
        classes = "class Big(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        classes += "".join(f"  {name} : int\n" for name in names) + "  last : Tensor\n  training : bool\n"
        classes += "class Small(Module):\n  __parameters__ = []\n  __buffers__ = []\n  w : Tensor\n  training : bool\n"
        pick = f"def pick(b: {HERE}.Big, x: Tensor) -> Tensor:\n  {action}\n  return x\n"
        statements = "b = self.big\ns = self.small\n" + CONFUSIONS[how].format(a="b", b="s")
        archive = with_code(f"{statements}\nwindows = {HERE}.pick(_p, windows)", pick)
        text = archive.code[CODE].replace(
            "  features :", f"  big : {HERE}.Big\n  small : {HERE}.Small\n  features :"
        )
        archive.code[CODE] = classes + text
        weight = archive.tensors()[0]
        root = archive.data
        big = unbuilt_object(f"{HERE}.Big", {**dict.fromkeys(names, 1), "last": weight, "training": False})
        small = unbuilt_object(f"{HERE}.Small", {"w": weight, "training": False})
        first = dict(list(root.fields.items())[:2])
        root.fields = {**first, "big": big, "small": small, **root.fields}
        return archive.to_bytes()

    return make


# ------------------------------------------------------------------------------------- doubling, depth, length


def doubling(prefix: str, pattern: str, count: int = 40) -> str:
    return f"{prefix}\n" + "\n".join(pattern.format(a=k, b=k + 1) for k in range(count))


def functions(count: int, body: str) -> str:
    made = [
        f"def g{k}(x: Tensor) -> Tensor:\n  return {body.format(here=HERE, next=k + 1)}\n"
        for k in range(count)
    ]
    return "".join(made) + f"def g{count}(x: Tensor) -> Tensor:\n  return torch.relu(x)\n"


def shared_submodules(depth: int = 40) -> Make:
    """Modules that hold one module twice, so that following all paths takes 2**depth steps."""

    def make() -> bytes:
        archive = lenet_archive()
        classes, inner = "", Object(Global(HERE, "M0"), {"training": False})
        classes += f"class M0(Module):\n  training : bool\n  def forward(self: {HERE}.M0,\n    x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
        for k in range(1, depth + 1):
            classes += (
                f"class M{k}(Module):\n  training : bool\n  a : {HERE}.M{k - 1}\n  b : {HERE}.M{k - 1}\n"
                f"  def forward(self: {HERE}.M{k},\n    x: Tensor) -> Tensor:\n    a = self.a\n    b = self.b\n"
                "    return (b).forward((a).forward(x, ), )\n"
            )
            inner = Object(Global(HERE, f"M{k}"), {"training": False, "a": inner, "b": inner})
        text = archive.code[CODE].replace("  features :", f"  deep : {HERE}.M{depth}\n  features :")
        text = text.replace(LINE, "    deep = self.deep\n    windows = (deep).forward(windows, )\n" + LINE)
        archive.code[CODE] = classes + text
        fields = archive.data.fields
        archive.data.fields = {**dict(list(fields.items())[:2]), "deep": inner, **fields}
        return archive.to_bytes()

    return make


def classes_in_pairs(depth: int = 60) -> str:
    """Types that, written out, double with every class; no object has them."""
    made = "class P0(NamedTuple):\n  a : int\n  b : int\n"
    for k in range(1, depth):
        made += f"class P{k}(NamedTuple):\n  a : {HERE}.P{k - 1}\n  b : {HERE}.P{k - 1}\n"
    return made + f"def p(x: {HERE}.P{depth - 1}) -> {HERE}.P{depth - 1}:\n  return x\n"


SPIN = "def spin(n: int) -> int:\n  s = 0\n  for i in range(n):\n    s = torch.add(s, i)\n  return s\n"
TRUES = ", ".join(["True"] * 32)
LONG_LIST = ", ".join(["4702111234474983745"] * 4000)


def lying(first: str, first_type: str, cast: str, second: str) -> str:
    return (
        f"_l = annotate(List[{first_type}], [])\n_p = annotate({first_type}, [{first}])\n_1 = torch.append(_l, _p)\n"
        f"_2 = unchecked_cast(List[{cast}], _l)\n_3 = torch.append(_2, [{second}])\n_0 = torch.tensor(_l)"
    )


# ---------------------------------------------------------------------------------------- pickles and archives


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


def set_member(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> Callable[[Archive], None]:
    def edit(archive: Archive) -> None:
        archive.others[f"archive/{name}"] = content
        archive.compression = compression

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


HOSTILE: dict[str, Make] = {
    **{f"class confusion: {how}": confusion(how) for how in CONFUSIONS},
    **{f"class confusion in range: {how}": field_confusion(how, 4, leak=True) for how in CONFUSIONS},
    **{f"class confusion, leak: {how}": field_confusion(how, 1500, leak=True) for how in CONFUSIONS},
    "class confusion, silent": field_confusion("list of lists", 600, leak=False),
    "class confusion by uninitialized": code(
        f"_c = uninitialized({SEQUENTIAL})\nwindows = {HERE}.pick(_c, windows)", PICK.format(cls=SEQUENTIAL)
    ),
    "class confusion by annotation": code(
        f"_c = annotate({SEQUENTIAL}, self)\nwindows = {HERE}.pick(_c, windows)", PICK.format(cls=SEQUENTIAL)
    ),
    "repeats negative": code("_0 = torch.repeat_interleave(torch.tensor([100, -90]), output_size=10)"),
    "repeats negative, int32": code(
        "_0 = torch.repeat_interleave(torch.tensor([1000, -990], dtype=3), output_size=10)"
    ),
    "repeats negative, of a tensor": code(
        "_0 = torch.repeat_interleave(torch.ones([2, 3]), torch.tensor([5000, -4990]), 0, output_size=10)"
    ),
    "repeats of another sum": code("_0 = torch.repeat_interleave(torch.tensor([100000, 100000]), output_size=1)"),
    "lying list of booleans": code(lying(TRUES, "List[bool]", "List[int]", LONG_LIST)),
    "lying list of numbers": code(lying("1., 2.", "List[float]", "List[Tensor]", "windows, windows")),
    "lying list of integers": code(lying("1, 2", "List[int]", "List[bool]", TRUES)),
    "lying ragged list": code(lying("[1, 2]", "List[List[int]]", "List[List[bool]]", f"[{TRUES}], [{TRUES}]")),
    **{
        f"dtype {number} of {name}": code(f"_0 = torch.{name}({arguments}, dtype={number})")
        for name, arguments in (("zeros", "[4]"), ("ones", "[4]"), ("full", "[4], 1"), ("arange", "4"), ("tensor", "[1]"))
        for number in (-1, 99)
    },
    "dtype of a sum": code("_0 = torch.sum(windows, dtype=-1)"),
    "dtype of a softmax": code("_0 = torch.softmax(windows, 1, -100)"),
    "cast to -100": code("_0 = torch.to(windows, -100)"),
    "cast to -1, copied": code("_0 = torch.to(windows, -1, False, True)"),
    "cast to 255 on a device": code('_0 = torch.to(windows, torch.device("cpu"), 255, False, False)'),
    "cast to memory format 77": code("_0 = torch.to(windows, 6, False, False, 77)"),
    "antialiased bilinear": code(
        "_0 = torch._upsample_bilinear2d_aa(torch.ones([1, 1, 8, 8]), [8, 1000], False, 1.0, 0.00001)"
    ),
    "antialiased bicubic": code(
        "_0 = torch._upsample_bicubic2d_aa(torch.ones([1, 1, 8, 8]), [1000, 8], False, 0.00001, 1.0)"
    ),
    "bilinear of another scale": code(
        "_0 = torch.upsample_bilinear2d(torch.ones([1, 1, 8, 8]), [8, 1000], False, 1e-300, 1e-300)"
    ),
    "nearest of another scale": code("_0 = torch.upsample_nearest2d(torch.ones([1, 1, 8, 8]), [8, 1000], 1e-9, -5.)"),
    "doubling tuples": code(doubling("_0 = (windows, windows)", "_{b} = (_{a}, _{a})"), used=False),
    "doubling lists": code(doubling("_0 = [windows, windows]", "_{b} = [_{a}, _{a}]"), used=False),
    "doubling tuples of three": code(doubling("_0 = (1, 2, 3)", "_{b} = (_{a}, _{a}, _{a})", 30), used=False),
    "doubling types of classes": code(definitions=classes_in_pairs()),
    "default spins": code(
        f"_1 = {HERE}.q()", f"{SPIN}def q(x: int={HERE}.spin(1000000000000)) -> int:\n  return x\n"
    ),
    "default of a method spins": code(
        f"_1 = {HERE}.q(windows)",
        f"{SPIN}def q(w: Tensor, y: List[int]=[{HERE}.spin(1000000000000)]) -> int:\n  return 1\n",
    ),
    "default of many elements": code(
        f"_1 = {HERE}.q()", "def q(x: List[int]=torch.mul([1], 3000000000)) -> int:\n  return 1\n"
    ),
    "doubling functions": code(
        f"windows = {HERE}.g0(windows, )", functions(40, "{here}.g{next}({here}.g{next}(x, ), )")
    ),
    "doubling sums of functions": code(
        f"windows = {HERE}.g0(windows, )", functions(60, "torch.add({here}.g{next}(x, ), {here}.g{next}(x, ))")
    ),
    "doubling submodules": shared_submodules(),
    "chain of functions": code(
        f"windows = {HERE}.g0(windows, )", functions(5000, "{here}.g{next}(x, )")
    ),
    "bomb of statements": code(
        definitions="def f(x: int) -> int:\n" + "  x=1\n" * 3_000_000 + "  return x\n", deflated=True
    ),
    "bomb of a list": code("_1 = [" + "1," * 6_000_000 + "]", deflated=True),
    "bomb of functions": code(
        definitions="".join(f"def f{k}(x: int) -> int:\n  return x\n" for k in range(200_000)), deflated=True
    ),
    "bomb of parentheses": code("_1 = " + "(" * 100_000 + "1" + ")" * 100_000),
    "bomb of a sum": code("_1 = " + "1+" * 100_000 + "1"),
    "bomb of attributes": code("_1 = windows" + ".a" * 100_000),
    "straight line": code("_0 = windows\n" + "_0 = torch.relu(_0)\n" * 20_000),
    "straight line of sums": code("_0 = windows\n" + "_0 = torch.add(_0, windows)\n" * 20_000),
    "straight line of calls": code("_0 = windows\n" + f"_0 = {HERE}.h(_0, )\n" * 8000, "def h(x: Tensor) -> Tensor:\n  return torch.relu(x)\n"),
    "raise with escapes": code(f'ops.prim.RaiseException("{ESCAPE} line", "builtins.SystemExit")'),
    "raise with escapes, class": code(f'ops.prim.RaiseException("a", "builtins.{ESCAPE}")'),
    "raise formatted escapes": code(f'ops.prim.RaiseException(torch.format("{{}}\\x1b[2J<b>", "{ESCAPE}"))'),
    "escapes in a field's name": code(f'_1 = getattr(self, "{ESCAPE}")'),
    "escapes in metadata": edited(set_member("extra/t3ssfast.json", b'{"kind": "\\u001b]0;PWNED\\u0007\\u001b[2J"}')),
    "escapes in a member's name": edited(set_member("\x1b]0;PWNED\x07\x1b[2J.py", b"x")),
    "escapes in a class": edited(set_class("__torch__", "\x1b]0;PWNED\x07\x1b[2J")),
    "warn with escapes": code(f'torch.warn("{ESCAPE}", 2)'),
    "warn with formatted escapes": code(f'torch.warn(torch.format("{{}}", "{ESCAPE}"))'),
    "print escapes": code(f'print("{ESCAPE}")'),
    "smallest integer divided": code("_0 = torch.tensor([torch.floordiv(torch.sub(-9223372036854775807, 1), -1)])"),
    "smallest integer's remainder": code("_0 = torch.tensor([torch.remainder(torch.sub(-9223372036854775807, 1), -1)])"),
    "smallest integer divided, operator": code("_0 = torch.tensor([(-9223372036854775807 - 1) // -1])"),
    "smallest integer's fmod": code("_0 = torch.tensor([torch.fmod(torch.sub(-9223372036854775807, 1), -1)])"),
    "division by zero": code("_0 = torch.tensor([torch.floordiv(1, 0)])"),
    "endless loop": code("while True:\n  _1 = 1"),
    "long loop": code("for i in range(9223372036854775807):\n  windows = torch.relu(windows)"),
    "recursion of functions": code(
        f"windows = {HERE}.r(windows, )",
        f"def r(x: Tensor) -> Tensor:\n  return {HERE}.s(x, )\ndef s(x: Tensor) -> Tensor:\n  return {HERE}.r(x, )\n",
    ),
    "recursion of forward": code("windows = (self).forward(windows, )"),
    "doubling tensors": code("_0 = windows\n" + "_0 = torch.cat([_0, _0], 0)\n" * 40),
    "huge pad": code("_0 = torch.constant_pad_nd(windows, [1000000, 1000000, 1000000, 1000000])"),
    "huge interpolation": code("_0 = torch.upsample_nearest2d(windows, None, [1e300, 1e300])"),
    "huge zeros": code("_0 = torch.zeros([1099511627776])"),
    "huge expansion": code("_0 = torch.relu(torch.expand(torch.ones([1]), [1099511627776]))"),
    "stride of zero": code("_0 = torch.max_pool2d(windows, [2, 2], [0, 0])"),
    "out of an operator": code("_0 = torch.add(windows, windows, out=windows)"),
    "out of an operator, positional": code("_0 = ops.aten.add(windows, windows, 1, windows)"),
    "weights changed in place": code('c = self.classifier\n_5 = getattr(c, "5")\n_0 = torch.add_(_5.weight, 1.)'),
    "strided beyond": code("_0 = torch.as_strided(windows, [4, 4], [1000000, 1000000], 1000000)"),
    "indexed beyond": code("_0 = torch.index(windows, [torch.tensor([123456789])])"),
    "file mapped": code('_0 = torch.from_file("canary", True, 8)'),
    "file written": code('torch.save(windows, "canary")'),
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
        set_field("features", Raw(b"(Nt" + b"".join(b"r" + struct.pack("<I", 70_000 + k) + b"(j" + struct.pack("<I", 70_000 + k) + b"j" + struct.pack("<I", 70_000 + k) + b"t" for k in range(60))))
    ),
    "pickle calls": edited(set_root(Call(Global("posix", "system"), ["touch canary"]))),
    "metadata depth": edited(set_member("extra/t3ssfast.json", b"[" * 1_000_000)),
    "metadata length": edited(set_member("extra/t3ssfast.json", b'{"a": [' + b"0," * 20_000_000 + b"0]}", zipfile.ZIP_DEFLATED)),
    "zip bomb": edited(set_member("data/extra", b"\0" * 300_000_000, zipfile.ZIP_DEFLATED)),
    "doubled members": edited(double_members),
    "version": edited(set_member("version", b"9" * 1000)),
    "names of unicode": code("\N{LATIN SMALL LIGATURE FI}_0 = windows"),
    "long integer": code("_1 = " + "9" * 1_000_000),
    "long float": code("_1 = 0." + "9" * 1_000_000),
    "conditions": code("if torch.gt(torch.item(torch.sum(windows)), 0.):\n  windows = torch.relu(windows)\nelse:\n  windows = torch.neg(windows)"),
    "batch of the first": code("windows = torch.expand(torch.slice(windows, 0, 0, 1), [2, 1, 50, 50])"),
}  # fmt: skip


def hostile_archives() -> dict[str, Make]:
    """Hostile classifiers by name; each function makes the archive."""
    return dict(HOSTILE)
