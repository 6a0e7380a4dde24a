"""Fixed hostile model files whose code is edited, from an honest LeNet."""

from __future__ import annotations

from collections.abc import Callable

from archive_bases import lenet_archive
from archive_tree import Archive, Global, Object, unbuilt_object

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
            archive.deflated = (".py",)
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


def field_confusion(how: str, fields: int, *, beyond: bool, leak: bool = True) -> Make:
    """Take an object of few fields for one of many, and read a field of it: in range, or beyond."""

    def make() -> bytes:
        action = "x = torch.add(torch.mul(torch.sum(b.last), 0), x)"
        if leak:
            # The runner recognises the number in the message of a refusal.
            value = 'torch.format("LEAKED {}", torch.item(torch.sum(b.last)))'
            action = f'ops.prim.RaiseException({value}, "builtins.ValueError")'
        names = [f"f{k}" for k in range(fields)]
        classes = "class Big(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        # Fields are found by their position: the first of both classes is a tensor, or only one has a last.
        numbers = "".join(f"  {name} : int\n" for name in names)
        tensor = "  last : Tensor\n"
        classes += (numbers + tensor if beyond else tensor + numbers) + "  training : bool\n"
        classes += "class Small(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        classes += "  w : Tensor\n  training : bool\n"
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


# ------------------------------------------------------------------------------------ doubling, depth, length


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
        classes += "class M0(Module):\n  training : bool\n"
        classes += f"  def forward(self: {HERE}.M0,\n    x: Tensor) -> Tensor:\n"
        classes += "    return torch.relu(x)\n"
        for k in range(1, depth + 1):
            classes += (
                f"class M{k}(Module):\n  training : bool\n  a : {HERE}.M{k - 1}\n  b : {HERE}.M{k - 1}\n"
                f"  def forward(self: {HERE}.M{k},\n    x: Tensor) -> Tensor:\n"
                "    a = self.a\n    b = self.b\n"
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
# Rows of equal lengths, whose elements need one byte and eight.
TRUES = ", ".join(["True"] * 4000)
INTEGERS = ", ".join(["4702111234474983745"] * 4000)


def lying(first: str, first_type: str, cast: str, second: str) -> str:
    return (
        f"_l = annotate(List[{first_type}], [])\n_p = annotate({first_type}, [{first}])\n"
        "_1 = torch.append(_l, _p)\n"
        f"_2 = unchecked_cast(List[{cast}], _l)\n_3 = torch.append(_2, [{second}])\n_0 = torch.tensor(_l)"
    )
