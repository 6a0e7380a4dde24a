"""Statements and definitions of TorchScript that no network needs, with holes for names and values.

Holes: {x}, {y} variables in scope; {v} a new name; {i} an integer, mostly out of range; {n} a small integer;
{f} a float; {s} a string literal; {t} a type; {d} a number of a dtype, mostly of none; {self} and {cls} the
object and its class; {here} the package of the class.
"""

from __future__ import annotations

from hostile_operators import CALLS, FOREIGN

INTEGERS = (
    "-1", "0", "1", "2", "-2", "3", "7", "64", "255", "-9223372036854775807", "9223372036854775807",
    "torch.sub(-9223372036854775807, 1)", "-9223372036854775808", "2147483647", "2147483648", "-2147483648",
    "4294967296", "1099511627776", "1152921504606846976", "9223372036854775808", "99999999999999999999",
    "1" + "0" * 400, "1" + "0" * 5000, "True", "1.", "None", '"1"', "0x7fffffffffffffff", "1_000", "0o17",
)  # fmt: skip
FLOATS = (
    "0.", "-0.", "1.", "-1.", "0.5", "1e300", "-1e300", "1e-300", "5e-324", "inf", "-inf", "nan", "1e999",
    "torch.float(\"nan\")", "2.0000001", "1e10", "0." + "3" * 5000, "3", "1j",
)  # fmt: skip
STRINGS = (
    '""', '"a"', '"\\033]0;PWNED\\007\\033[2J"', '"\\x1b[31m"', '"\\n\\r\\t"', '"%s%n%d"', '"{}{}{}"',
    '"<script>alert(1)</script>"', '"\\u202e"', '"\\udc80"', '"' + "A" * 3000 + '"', '"../../canary"',
    '"\\0"',
    "'bilinear'", '"nearest"', '"cuda:0"', '"meta"', '"cpu"',
)  # fmt: skip
DTYPES = (
    "-1", "-100", "99", "255", "256", "2147483647", "-9223372036854775807", "6", "7", "5", "15", "11", "9",
    "3",
    "0", "12", "44", "1000000", "None", '"float"', "[6]", "6.",
)  # fmt: skip
TYPES = (
    "Tensor", "int", "float", "bool", "str", "NoneType", "Any", "Device", "List[int]", "List[List[int]]",
    "List[Tensor]", "Tuple[int, int]", "Tuple[()]", "Optional[Tensor]", "Dict[str, Tensor]", "Future[int]",
    "RRef[int]", "List[List[List[float]]]", "number", "Union[int, str]", "__torch__.Nothing", "Storage",
    "t", "Optional[" * 60 + "int" + "]" * 60, "Callable", "Generator", "Stream", "complex", "Final[int]",
)  # fmt: skip

# Statements that confuse types, lists, objects and control flow.
LANGUAGE = """
{v} = annotate(List[List[bool]], [])
{v} = annotate({t}, [])
{v} = annotate({t}, {x})
{v} = annotate({cls}, {x})
{v} = unchecked_cast({t}, {x})
{v} = unchecked_cast({cls}, {x})
{v} = unchecked_cast({t}, {self})
{v} = unchecked_cast(Tensor, {i})
{v} = uninitialized({t})
{v} = uninitialized({cls})
{v} = torch.append(unchecked_cast(List[int], [{self}]), {i})
{v} = torch.append(unchecked_cast(List[List[int]], [[{x}]]), [{i}])
{v} = torch.append(unchecked_cast(List[Any], [{x}]), {self})
{v} = torch.tensor(unchecked_cast(List[List[int]], [[True]]))
{v} = ({self}, {x})
{v} = [{self}]
{v} = {self}
{v} = {cls}
{v} = torch
{v} = ops.aten
{v} = CONSTANTS
{v} = CONSTANTS.c0
{v} = CONSTANTS.c99999
{v} = torch.jit
{v} = inf
{v} = nanj
{v} = {self}.forward
{v} = {self}.forward({x}, )
{v} = ({self}).forward({x}, )
{v} = {self}.training
{v} = {self}.nothing
{v} = getattr({self}, {s})
{v} = getattr({x}, "data")
{v} = getattr(torch, "save")
{v} = hasattr({self}, {s})
{self}.training = True
{self}.training = {x}
{self}.weight = {x}
{self}.nothing = {x}
setattr({self}, "training", True)
{x}.data = {x}
{x}.requires_grad = True
{x}.grad
{v} = {x}.T
{v} = {x}.is_cuda
{v} = {x}.save("canary")
{x}[0] = 1
{v} = {x}[{i}]
{v} = {x}[{i}:{i}:{i}]
{v} = {x}[..., None]
{v} = ({x}, {x})[{i}]
{v} = [{x}][{i}]
{v} = {{"a": 1}}[{s}]
{v} = {{{s}: {x}}}
{v} = {x} + {x}
{v} = -{x}
{v} = not {x}
{v} = {x} if {x} else {y}
{v} = {x} and {y}
{v} = {i} < {i} < {i}
{v} = f"{{{x}!r}}"
{v} = b"abc"
{v} = ...
{v} = 1j
{v} = {i}
{v} = {f}
{v} = {s}
{v} = lambda: {x}
{v} = [{x} for _ in range({i})]
{v} = ({v}0 := {x})
{v}: int = {x}
{v}, {v}1 = {x}
{v}, {v}1, {v}2 = ({x}, {x})
{v}, *{v}1 = ({x}, {x})
{v} = {v}1 = {x}
{x} += {y}
torch, {v} = {x}, {x}
torch = {x}
{self} = {x}
annotate = {x}
Tensor = {x}
del {x}
pass
global {x}
nonlocal {x}
return {x}
return None
return
break
continue
yield {x}
{v} = await {x}
import os
from os import system
assert {x}
assert False, {s}
raise ValueError({s})
raise {x}
ops.prim.RaiseException({s})
ops.prim.RaiseException({s}, "builtins.SystemExit")
ops.prim.RaiseException({s}, {s})
torch.warn({s}, {i})
torch.warn({s})
print({s}, {x})
{v} = fork({self}.forward, {x})
{v} = torch.fork({x})
{v} = torch.wait({x})
{v} = torch.jit.annotate({t}, {x})
{v} = open("canary", "w")
{v} = eval({s})
{v} = exec({s})
{v} = __import__("os")
{v} = __torch__.os.system({s})
{v} = __torch__.torch.nn.functional.nothing({x}, )
{v} = {here}.nothing({x}, )
{v} = __torch__
{v} = {cls}({x})
{v} = {cls}.forward({self}, {x})
{v} = torch.relu_({x})
{v} = torch.add_({x}, 1)
{v} = torch.mul_({x}, {x})
{v} = torch.copy_({x}, {y})
{v} = torch.zero_({x})
{v} = torch.fill_({x}, {f})
{v} = torch.add_({self}.weight, {f})
{v} = torch.zero_({self}.weight)
{v} = torch.copy_({self}.weight, {x})
{v} = torch.mul_({self}.running_var, 0)
{v} = torch.transpose_({x}, 0, 1)
{v} = torch.squeeze_({x})
{v} = torch.detach_({x})
{v} = torch.sub_(torch.slice({x}, 3, 1), torch.slice({x}, 3, 0, -1))
{v} = torch.add_(torch.expand(torch.ones([1]), [{i}]), 1)
while True:|  {v} = {x}
while torch.gt({i}, {i}):|  {v} = torch.relu({x})
for {v} in range({i}):|  {v}0 = torch.relu({x})
for {v} in range(3):|  {x} = torch.cat([{x}, {x}], 1)
for {v} in {x}:|  pass
for {v} in [1, 2]:|  continue
if {x}:|  {v} = {x}|else:|  {v} = {y}
if torch.gt(torch.dim({x}), {i}):|  {v} = {x}|else:|  {v} = {i}
if torch.__is__({x}, None):|  {v} = {x}
if True:|  return {x}
if torch.gt(torch.item(torch.sum({x})), 0):|  ops.prim.RaiseException({s})
with torch.no_grad():|  {v} = {x}
try:|  {v} = {x}|except:|  pass
match {x}:|  case _:|    pass
def inner({x}: Tensor) -> Tensor:|  return {x}
class Inner(Module):|  pass
"""


# Definitions at the end of a file, and fields and methods at the end of a class (indented).
DEFINITIONS = """
def {v}(x: Tensor, y: int={here}.spin(1000000000000)) -> Tensor:|  return x
def {v}(x: Tensor, y: List[int]=[{i}, {i}]) -> Tensor:|  return x
def {v}(x: Tensor, y: float={f}, z: str={s}) -> Tensor:|  return x
def {v}(x: Tensor, y: int=torch.floordiv({i}, {i})) -> Tensor:|  return x
def {v}(x: Tensor, y: {t}=None) -> Tensor:|  return x
def {v}(x: {t}) -> {t}:|  return x
def {v}(x: Tensor, *rest: Tensor) -> Tensor:|  return x
def {v}(x: Tensor, **rest: Tensor) -> Tensor:|  return x
def {v}(x: Tensor, /, *, y: Tensor) -> Tensor:|  return x
def {v}(x) -> Tensor:|  return x
def {v}(x: Tensor):|  return x
def {v}(x: Tensor, x: Tensor) -> Tensor:|  return x
def {v}(torch: Tensor) -> Tensor:|  return torch
def {v}(x: Tensor) -> Tensor:|  pass
def {v}(x: int) -> int:|  return {here}.{v}(torch.add(x, 1), )
async def {v}(x: Tensor) -> Tensor:|  return x
def forward(self: {cls}, x: Tensor) -> Tensor:|  return x
def __torch__(x: Tensor) -> Tensor:|  return x
def \N{LATIN SMALL LETTER E WITH ACUTE}(x: Tensor) -> Tensor:|  return x
def \N{LATIN SMALL LIGATURE FI}(x: Tensor) -> Tensor:|  return x
@torch.jit.script|def {v}(x: Tensor) -> Tensor:|  return x
class {v}(Module):|  a : int
class torch(Module):|  __parameters__ = []
class __torch__(Module):|  __parameters__ = []
class {v}(NamedTuple):|  a : int|  b : Tensor
class {v}(Enum):|  a = 1
class {v}(ModuleInterface):|  def forward(self, x: Tensor) -> Tensor:|    pass
class {v}(Module, metaclass=type):|  pass
class {v}:|  pass
class {v}(object):|  def __init__(self: {here}.{v}) -> NoneType:|    return None
type {v} = int
{v} = 1
torch.save([1], "canary")
import os
  extra : {t}
  extra : {cls}
  extra : int = 3
  training : int
  weight : {t}
  bias : {t}
  weight : Tensor
  __annotations__["0"] = {t}
  __annotations__[{s}] = int
  __parameters__ = ["training", ]
  __parameters__ = [{s}]
  __buffers__ = ["weight", ]
  __forward_hooks__ = ["hook", ]
  __constants__ = [{i}]
  stride : Final[int] = {i}
  stride : Final[Tuple[int, int]] = ({i}, {i})
  in_features : Final[int] = {s}
  note : Final[str] = {s}
  table : Final[List[int]] = [{i}]
  def __setstate__(self: {cls}, s: int) -> NoneType:|    return None
  def __getstate__(self: {cls}) -> NoneType:|    return None
  def __del__(self: {cls}) -> NoneType:|    return None
  def __len__(self: {cls}) -> int:|    return {i}
  def __call__(self: {cls}, x: Tensor) -> Tensor:|    return x
  def __getattr__(self: {cls}, x: str) -> Tensor:|    return x
  def forward(self: {cls}) -> NoneType:|    return None
  def forward(self: {cls}, x: Tensor) -> Tensor:|    return (self).forward(x, )
  def _conv_forward(self: {cls}, input: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:|    return input
  def {v}(self: Tensor) -> NoneType:|    return None
  def {v}() -> NoneType:|    return None
  @staticmethod|  def {v}(self: {cls}) -> NoneType:|    return None
"""  # noqa: E501


def templates(block: str) -> tuple[str, ...]:
    """The templates of a block; "|" ends a line."""
    return tuple(line for line in block.strip("\n").split("\n") if line)


NETWORK_CALLS, FOREIGN_CALLS, LANGUAGE_STATEMENTS = map(templates, (CALLS, FOREIGN, LANGUAGE))
DEFINED = templates(DEFINITIONS)
