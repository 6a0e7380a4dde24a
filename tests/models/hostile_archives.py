"""Fixed hostile model files by name, at least two of every kind that is known to have harmed."""

from __future__ import annotations

from hostile_code import (
    CONFUSIONS,
    ESCAPE,
    HERE,
    INTEGERS,
    PICK,
    SEQUENTIAL,
    SPIN,
    TRUES,
    Make,
    classes_in_pairs,
    code,
    confusion,
    doubling,
    field_confusion,
    functions,
    lying,
    shared_submodules,
)
from hostile_pickles import PICKLES

__all__ = ["hostile_archives"]

CODES: dict[str, Make] = {
    **{f"class confusion: {how}": confusion(how) for how in CONFUSIONS},
    **{f"class confusion in range: {how}": field_confusion(how, 4, beyond=False) for how in CONFUSIONS},
    **{f"class confusion, leak: {how}": field_confusion(how, 1500, beyond=True) for how in CONFUSIONS},
    "class confusion, silent": field_confusion("list of lists", 600, beyond=True, leak=False),
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
    "repeats of another sum": code(
        "_0 = torch.repeat_interleave(torch.tensor([100000, 100000]), output_size=1)"
    ),
    "lying list of booleans": code(lying(TRUES, "List[bool]", "List[int]", INTEGERS)),
    "lying list of numbers": code(lying("1., 2.", "List[float]", "List[Tensor]", "windows, windows")),
    "lying list of integers": code(lying(INTEGERS, "List[int]", "List[bool]", TRUES)),
    "lying ragged list": code(lying(f"[{TRUES}]", "List[List[bool]]", "List[List[int]]", f"[{INTEGERS}]")),
    **{
        f"dtype {number} of {name}": code(f"_0 = torch.{name}({arguments}, dtype={number})")
        for name, arguments in (
            ("zeros", "[4]"),
            ("ones", "[4]"),
            ("full", "[4], 1"),
            ("arange", "4"),
            ("tensor", "[1]"),
        )
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
    "nearest of another scale": code(
        "_0 = torch.upsample_nearest2d(torch.ones([1, 1, 8, 8]), [8, 1000], 1e-9, -5.)"
    ),
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
        f"windows = {HERE}.g0(windows, )",
        functions(60, "torch.add({here}.g{next}(x, ), {here}.g{next}(x, ))"),
    ),
    "doubling submodules": shared_submodules(),
    "chain of functions": code(f"windows = {HERE}.g0(windows, )", functions(5000, "{here}.g{next}(x, )")),
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
    "straight line of calls": code(
        "_0 = windows\n" + f"_0 = {HERE}.h(_0, )\n" * 8000,
        "def h(x: Tensor) -> Tensor:\n  return torch.relu(x)\n",
    ),
    "raise with escapes": code(f'ops.prim.RaiseException("{ESCAPE} line", "builtins.SystemExit")'),
    "raise with escapes, class": code(f'ops.prim.RaiseException("a", "builtins.{ESCAPE}")'),
    "raise formatted escapes": code(f'ops.prim.RaiseException(torch.format("{{}}\\x1b[2J<b>", "{ESCAPE}"))'),
    "escapes in a field's name": code(f'_1 = getattr(self, "{ESCAPE}")'),
    "warn with escapes": code(f'torch.warn("{ESCAPE}", 2)'),
    "warn with formatted escapes": code(f'torch.warn(torch.format("{{}}", "{ESCAPE}"))'),
    "print escapes": code(f'print("{ESCAPE}")'),
    "smallest integer divided": code(
        "_0 = torch.tensor([torch.floordiv(torch.sub(-9223372036854775807, 1), -1)])"
    ),
    "smallest integer's remainder": code(
        "_0 = torch.tensor([torch.remainder(torch.sub(-9223372036854775807, 1), -1)])"
    ),
    "smallest integer divided, operator": code("_0 = torch.tensor([(-9223372036854775807 - 1) // -1])"),
    "smallest integer's fmod": code(
        "_0 = torch.tensor([torch.fmod(torch.sub(-9223372036854775807, 1), -1)])"
    ),
    "division by zero": code("_0 = torch.tensor([torch.floordiv(1, 0)])"),
    "endless loop": code("while True:\n  _1 = 1"),
    "long loop": code("for i in range(9223372036854775807):\n  windows = torch.relu(windows)"),
    "recursion of functions": code(
        f"windows = {HERE}.r(windows, )",
        f"def r(x: Tensor) -> Tensor:\n  return {HERE}.s(x, )\n"
        f"def s(x: Tensor) -> Tensor:\n  return {HERE}.r(x, )\n",
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
    "weights changed in place": code(
        'c = self.classifier\n_5 = getattr(c, "5")\n_0 = torch.add_(_5.weight, 1.)'
    ),
    "strided beyond": code("_0 = torch.as_strided(windows, [4, 4], [1000000, 1000000], 1000000)"),
    "indexed beyond": code("_0 = torch.index(windows, [torch.tensor([123456789])])"),
    "file mapped": code('_0 = torch.from_file("canary", True, 8)'),
    "file written": code('torch.save(windows, "canary")'),
    "names of unicode": code("\N{LATIN SMALL LIGATURE FI}_0 = windows"),
    "long integer": code("_1 = " + "9" * 1_000_000),
    "long float": code("_1 = 0." + "9" * 1_000_000),
    "conditions": code(
        "if torch.gt(torch.item(torch.sum(windows)), 0.):\n  windows = torch.relu(windows)\n"
        "else:\n  windows = torch.neg(windows)"
    ),
    "batch of the first": code("windows = torch.expand(torch.slice(windows, 0, 0, 1), [2, 1, 50, 50])"),
}


def hostile_archives() -> dict[str, Make]:
    """Hostile classifiers by name; each function makes the archive."""
    return CODES | PICKLES
