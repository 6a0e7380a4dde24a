"""Hostile model files are refused without running code; benign ones give bit-identical outputs."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archives import (
    BENIGN,
    CODE,
    CONSTANTS,
    DATA,
    LINE,
    read_archive,
    save_benign,
    write_archive,
)
from processes import search_path
from t3ssfast.errors import ModelError, TrustWarning
from t3ssfast.models import load_model
from t3ssfast.models.foreign.operators import RULES
from t3ssfast.models.torchscript import quiet_torchscript


@pytest.fixture(scope="module")
def benign(tmp_path_factory):
    """Members of a benign classifier's archive.

    A new process saves it: PyTorch numbers the classes of a process, and the tests edit their names.
    """
    path = tmp_path_factory.mktemp("benign") / "classifier.pt"
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import archives; "
    script += f"archives.classifier_file(archives.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", script], timeout=250, check=True)
    return read_archive(path)


# ---------------------------------------------------------------------------------------------- benign models


@pytest.mark.parametrize("with_metadata", [True, False], ids=["with metadata", "plain"])
@pytest.mark.parametrize("name", BENIGN)
def test_benign_models_give_bit_identical_outputs(tmp_path, name, with_metadata):
    path = tmp_path / "model.pt"
    model_kind = save_benign(name, path, with_metadata=with_metadata)
    with quiet_torchscript():
        original = torch.jit.load(path, map_location="cpu").eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*holds no t3ssfast metadata")
        passed = load_model(path, model_kind=model_kind).module
    side = 50 if model_kind == "classifier" else 64
    for seed in range(3):
        x = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            assert torch.equal(original(x), passed(x))
    for (name_a, a), (name_b, b) in zip(original.named_parameters(), passed.named_parameters(), strict=True):
        assert name_a == name_b
        assert torch.equal(a, b)


def test_tied_weights_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(1, 1, 3, padding=1)
            self.b = nn.Conv2d(1, 1, 3, padding=1)
            self.b.weight = self.a.weight
            self.again = self.a

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.b(self.a(x)))

    with quiet_torchscript():
        torch.jit.script(Tied()).save(tmp_path / "tied.pt")
    with pytest.warns(UserWarning, match="holds no t3ssfast metadata"):
        module = load_model(tmp_path / "tied.pt", model_kind="segmenter").module
    assert [name for name, _ in module.named_parameters()] == ["a.weight", "a.bias", "b.bias"]


def test_operators_with_a_rule_exist_and_exclude_dangerous_ones():
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    assert {f"aten::{name}" for name in RULES} <= known
    for name in ("save", "from_file", "load", "as_strided", "set_", "resize_", "empty", "fork", "rand"):
        assert name not in RULES


# ------------------------------------------------------------------------------------------- hostile archives

# Inserted into the classifier's forward. CANARY is a file that must never appear.
STATEMENTS = [
    'torch.save(windows, "CANARY")',
    'ops.aten.save(windows, "CANARY")',
    '_0 = torch.from_file("CANARY", True, 8)',
    '_0 = ops.aten.from_file("CANARY", True, 8)',
    '_0 = torch.load("CANARY")',
    '_0 = torch.jit.load("CANARY")',
    '_0 = torch.save\n    _0(windows, "CANARY")',
    '_0 = torch\n    _0.save(windows, "CANARY")',
    '_0 = ops.aten\n    _0.save(windows, "CANARY")',
    'windows.save("CANARY")',
    '(windows).save("CANARY", )',
    'getattr(windows, "save")("CANARY")',
    '_0 = getattr(windows, "save")\n    _0("CANARY")',
    '_0 = getattr(torch, "save")\n    _0(windows, "CANARY")',
    'self.save(windows, "CANARY")',
    'torch.relu(torch.save(windows, "CANARY"))',
    '_0 = [torch.save(windows, "CANARY")]',
    'if torch.save(windows, "CANARY"):\n      pass\n    else:\n      pass',
    'for i in range(torch.save(windows, "CANARY")):\n      pass',
    'print("CANARY")',
    'ops.prim.Print("CANARY")',
    'ops.prim.PythonOp("CANARY")',
    'ops.mylib.run("touch CANARY")',
    "_0 = ops.quantized.linear(windows, windows, 1., 0)",
    'open("CANARY", "w")',
    "eval(\"open('CANARY', 'w')\")",
    "exec(\"open('CANARY', 'w')\")",
    '__import__("os").system("touch CANARY")',
    'import os\n    os.system("touch CANARY")',
    '__torch__.os.system("touch CANARY")',
    "_0 = torch.as_strided(windows, [1000000], [1], 0)",
    "_0 = torch.set_(windows, windows)",
    "_0 = torch.resize_(windows, [1000000000])",
    "_0 = torch.empty([1000000])",
    "_0 = torch.rand([10])",
    "_0 = torch.manual_seed(0)",
    "_0 = torch.view(windows, 6)",
    "_0 = 6\n    _1 = torch.view(windows, _0)",
    "_0 = [6]\n    _0 = 6\n    _1 = torch.view(windows, _0)",
    "_0 = torch.view(windows, dtype=6)",
    "_0 = torch.relu(windows, out=windows)",
    "_0 = unchecked_cast(__torch__.t3ssfast.models.lenet.LeNet, windows)",
    "_0 = annotate(__torch__.t3ssfast.models.lenet.LeNet, windows)",
    "_0 = uninitialized(__torch__.t3ssfast.models.lenet.LeNet)",
    "_0 = unchecked_cast(Tuple[int, int, int], windows)",
    "_0 = unchecked_cast(List[Tuple[int, int]], windows)",
    "_0 = unchecked_cast(Any, windows)",
    "_0 = fork(self.forward, windows)",
    "_0 = torch.fork(windows)",
    "_0 = torch.wait(windows)",
    "while True:\n      pass",
    "_0 = torch.remainder(1, 0)",
    "_0 = torch.remainder(1, torch.len([1]))",
    "self.classifier = windows",
    "self.classifier.weight = windows",
    "windows.data = windows",
    "windows[0] = 1",
    "torch = windows",
    "CONSTANTS = windows",
    "_0 = CONSTANTS.c99",
    "_0 = CONSTANTS.c00",
    "_0 = CONSTANTS",
    "_0 = lambda: 1",
    "_0 = [x for x in [1]]",
    '_0 = f"{windows}"',
    "_0 = (_1 := 1)",
    "_0 = windows + windows",
    "_0 = 1 if True else 2",
    "_0 = True and False",
    "_0 = 1 < 2",
    "_0 = {1: 2}",
    "_0 = {1}",
    "_0 = 1j",
    '_0 = b"x"',
    "_0 = ...",
    "_0 = 1e999",
    f"_0 = {2**63}",
    '_0 = "\\u20ac"',
    "_0 = not_defined",
    "assert windows",
    'raise ValueError("CANARY")',
    "try:\n      pass\n    except:\n      pass",
    'with open("CANARY", "w"):\n      pass',
    "del windows",
    "global windows",
    "yield windows",
    "_0 = torch.relu(*[windows])",
    "_0 = torch.relu(**windows)",
    "_0 = (yield)",
    "def inner(x: Tensor) -> Tensor:\n      return x",
    "class Inner(Module):\n      pass",
    "_0 = " + "torch.relu(" * 70 + "windows" + ")" * 70,
    "_0 = " + "(" * 5000 + ")" * 5000,
    "".join("  " * k + "if True:\n    " for k in range(90)) + "  " * 90 + "pass",
    "_0 = windows" + ".data" * 3000,
    "\N{LATIN SMALL LIGATURE FI} = windows",
    "_0 = $",
]

# Appended to the file or, if indented, to the class.
DEFINITIONS = [
    "  def __setstate__(self: __torch__.t3ssfast.models.lenet.LeNet, s: int) -> NoneType:\n    return None",
    "  def __getstate__(self: __torch__.t3ssfast.models.lenet.LeNet) -> NoneType:\n    return None",
    "  def __init__(self: __torch__.t3ssfast.models.lenet.LeNet) -> NoneType:\n    return None",
    "  def __del__(self: __torch__.t3ssfast.models.lenet.LeNet) -> NoneType:\n    return None",
    "  def forward(self: __torch__.t3ssfast.models.lenet.LeNet) -> NoneType:\n    return None",
    '  __forward_hooks__ = ["hook", ]',
    "  extra : __torch__.torch.classes.quantized.Conv2dPackedParamsBase",
    "  extra : List[__torch__.t3ssfast.models.lenet.LeNet]",
    "  extra : Future[int]",
    "  extra : int = 3",
    "  training : int",
    '  count : Final[int] = torch.save([1], "CANARY")',
    '  torch.save([1], "CANARY")',
    "  @staticmethod\n  def f(self: __torch__.t3ssfast.models.lenet.LeNet) -> NoneType:\n    return None",
    "  def f(self: Tensor) -> NoneType:\n    return None",
    "  def f() -> NoneType:\n    return None",
    'torch.save([1], "CANARY")',
    'import os\nos.system("touch CANARY")',
    "from os import system",
    "@torch.jit.script\ndef f(x: Tensor) -> Tensor:\n  return x",
    'def f(x: Tensor, y: NoneType=torch.save([1], "CANARY")) -> Tensor:\n  return x',
    "def f(x: Tensor, *rest: Tensor) -> Tensor:\n  return x",
    "def f(torch: Tensor) -> Tensor:\n  return torch.relu(torch)",
    "def f(x) -> Tensor:\n  return x",
    "def f(x: Tensor):\n  return x",
    "async def f(x: Tensor) -> Tensor:\n  return x",
    (
        "def f(x: int) -> int:\n  return __torch__.t3ssfast.models.lenet.g(x, )\ndef g(x: int) -> int:\n"
        "  return __torch__.t3ssfast.models.lenet.f(x, )"
    ),
    "\n".join(
        f"def f{k}(x: Tensor) -> Tensor:\n  return __torch__.t3ssfast.models.lenet.f{k + 1}(x, )"
        for k in range(300)
    )
    + "\ndef f300(x: Tensor) -> Tensor:\n  return x",
    "class LeNet(Module):\n  pass",
    "class Other(NamedTuple):\n  a : int",
    "class Other(Enum):\n  a = 1",
    "class Other(ModuleInterface):\n  pass",
    "class Other:\n  pass",
    "class Other(Module, metaclass=type):\n  pass",
    (
        "class A(Module):\n  b : __torch__.t3ssfast.models.lenet.B\nclass B(Module):\n"
        "  a : __torch__.t3ssfast.models.lenet.A"
    ),
    "x = 1",
]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, argument: bytes) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + argument + b"tR"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


TOUCH = text("touch CANARY")
# Replacements of the module's pickle.
PICKLES = {
    "posix.system": pickled(call("posix", "system", TOUCH)),
    "os.system": pickled(call("os", "system", TOUCH)),
    "nt.system": pickled(call("nt", "system", TOUCH)),
    "subprocess": pickled(call("subprocess", "getoutput", TOUCH)),
    "exec": pickled(call("builtins", "exec", text("open('CANARY', 'w')"))),
    "eval": pickled(call("__builtin__", "eval", text("open('CANARY', 'w')"))),
    "getattr": pickled(call("builtins", "getattr", text("a") + text("b"))),
    "torch.load": pickled(call("torch", "load", text("CANARY"))),
    "torch.hub": pickled(call("torch.hub", "load", text("CANARY"))),
    "torch.jit": pickled(call("torch.jit._pickle", "build_anything", text("CANARY"))),
    "rebuild": pickled(call("torch._utils", "_rebuild_qtensor", text("CANARY"))),
    "storage type": pickled(call("torch", "QInt8Storage", text("CANARY"))),
    "partial": pickled(call("functools", "partial", TOUCH)),
    "a class of ours called": pickled(call("__torch__.t3ssfast.models.lenet", "LeNet", TOUCH)),
    "an ordered dict of something": pickled(call("collections", "OrderedDict", TOUCH)),
    "no module": pickled(text("CANARY")),
    "inst": pickled(b"(" + TOUCH + b"iposix\nsystem\n"),
    "obj": pickled(b"(cposix\nsystem\n" + TOUCH + b"o"),
    "stack global": pickled(text("posix") + text("system") + b"\x93" + b"(" + TOUCH + b"tR"),
    "extension": pickled(b"\x82\x01(" + TOUCH + b"tR"),
    "protocol 4": b"\x80\x04\x95" + struct.pack("<Q", 1) + b"N.",
    "protocol 5": b"\x80\x05N.",
    "text opcodes": b"cposix\nsystem\n(S'touch CANARY'\ntR.",
    "persistent id": b"Pos.system\n.",
    "newobj of a global": pickled(b"cposix\nsystem\n)\x81}b"),
    "newobj with arguments": pickled(b"c__torch__\nA\n(" + TOUCH + b"t\x81}b"),
    "an unknown class": pickled(b"c__torch__\nA\n)\x81}(ub"),
    "empty": b"",
    "empty stack": pickled(b""),
    "underflow": pickled(b"R"),
    "no mark": pickled(b"t"),
    "marks": pickled(b"((((\x85"),
    "unknown memo": pickled(b"h\x07"),
    "two values": pickled(b"NN"),
    "a long text": b"\x80\x02X\xff\xff\xff\xffabc.",
    "a long integer": pickled(b"\x8a\x09" + b"\x01" * 9),
    "cut": b"\x80\x02c__torch__.t3ssfast.models.lenet\nLe",
    "deep": pickled(b"]" * 2000 + b"a" * 1999),
}


def replaced(old: bytes, new: bytes, count: int = 1):
    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, count)

    return edit


FLOAT = b"ctorch\nFloatStorage\n"
# Changes to the module's pickle.
EDITS = {
    "another global": replaced(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem\n"),
    "wider elements than there are": replaced(FLOAT, b"ctorch\nDoubleStorage\n"),
    "a storage of objects": replaced(FLOAT, b"c__torch__\nFloatStorage1\n"),
    "no tensor where one is declared": replaced(b"X\x04\x00\x00\x00biasq", b"X\x04\x00\x00\x00biaxq"),
    "a field too many": replaced(b"X\x08\x00\x00\x00trainingq", b"X\x08\x00\x00\x00twiningsq"),
    "an integer for a boolean": replaced(b"trainingq\x01\x89", b"trainingq\x01K\x00"),
    "text for a boolean": replaced(b"trainingq\x01\x89", b"trainingq\x01X\x01\x00\x00\x00a"),
    "another module in its place": replaced(b"conv\nConv2d\n", b"activation\nReLU\n"),
    "more after the end": lambda content: content + b"cposix\nsystem\n(" + TOUCH + b"tR.",
    "a second module first": lambda content: content[:2] + b"N" + content[2:],
    "two protocols": lambda content: b"\x80\x03" + content,
    "half": lambda content: content[: len(content) // 2],
    "an unknown device": replaced(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00a\nb"),
    "a key with a path": replaced(b"X\x01\x00\x00\x000q", b"X\x01\x00\x00\x00/q"),
    # Two maps of 5 x 5: size (2, 1, 5, 5), stride (25, 25, 5, 1), and 50 elements.
    "a larger size": replaced(b"(K\x02K\x01K\x05K\x05t", b"(K\xffK\x01K\x05K\x05t"),
    "a larger stride": replaced(b"(K\x19K\x19K\x05K\x01t", b"(K\x19K\x19K\x05K\xfft"),
    "a negative size": replaced(b"(K\x02K\x01K\x05K\x05t", b"(K\x02K\x01K\x05J\xff\xff\xff\xfft"),
    "more strides than sizes": replaced(b"(K\x19K\x19K\x05K\x01t", b"(K\x19K\x19K\x05K\x01K\x01t"),
    "an offset": replaced(b"K2tQq\x0cK\x00", b"K2tQq\x0cK\x01"),
}


def with_member(name, change):
    """Return a function that changes, adds or removes (None) one member of an archive."""

    def build(members):
        changed = dict(members)
        content = change(changed.get(name, b"")) if callable(change) else change
        if content is None:
            del changed[name]
        else:
            changed[name] = content
        return write_archive(changed)

    return build


def with_entries(*extra, rename=None, compression=zipfile.ZIP_STORED):
    """Return a function that adds entries to an archive, renames them or compresses them."""

    def build(members):
        content = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(content, "w") as archive:
            warnings.simplefilter("ignore")
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(rename(name) if rename else name), data, compression)
            for name, data in extra:
                archive.writestr(zipfile.ZipInfo(name), data)
        return content.getvalue()

    return build


def with_bytes(change):
    """Return a function that changes the bytes of an archive."""
    return lambda members: change(bytearray(write_archive(members)))


def break_checksum(content):
    at = content.index(b"conv2d")
    content[at] ^= 1
    return bytes(content)


def encrypt(content):
    """Set the encryption flag of the first entry in both of its headers."""
    content[6] |= 1
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    return bytes(content)


def mismatch_local_header(content):
    """Give a local header another name than the directory."""
    at = content.index(b"data.pkl")
    content[at : at + 8] = b"datb.pkl"
    return bytes(content)


ARCHIVES = {
    "a name that climbs": with_entries(("archive/../../CANARY", b"x")),
    "an absolute name": with_entries(("/CANARY", b"x")),
    "a backslash": with_entries(("archive\\CANARY", b"x")),
    "a drive": with_entries(("archive/C:CANARY", b"x")),
    "a dot": with_entries(("archive/./data.pkl", b"x")),
    "an empty part": with_entries(("archive//data.pkl", b"x")),
    "a name of two lines": with_entries(("archive/a\nb", b"x")),
    "a name that is not ASCII": with_entries(
        ("archive/d\N{LATIN SMALL LETTER A WITH DIAERESIS}ta.pkl", b"x")
    ),
    "a zero in a name": with_bytes(
        lambda content: bytes(content.replace(b"archive/version", b"archive/\0ersion"))
    ),
    "a member twice": with_entries((DATA, PICKLES["posix.system"])),
    "a member in two cases": with_entries(("archive/DATA.pkl", PICKLES["posix.system"])),
    "two top folders": with_entries(("other/data.pkl", PICKLES["posix.system"])),
    "no top folder": with_entries(rename=lambda name: name.removeprefix("archive/")),
    "a library": with_entries(("archive/evil.so", b"\x7fELF")),
    "bytecode": with_entries(("archive/bytecode.pkl", PICKLES["posix.system"])),
    "Python": with_entries(("archive/code/os.py", b"open('CANARY', 'w')")),
    "code with a dot": with_entries(("archive/code/__torch__/a.b.py", b"")),
    "compressed tensors": with_entries(compression=zipfile.ZIP_DEFLATED),
    "another compression": with_entries(compression=zipfile.ZIP_LZMA),
    "a wrong checksum": with_bytes(break_checksum),
    "an encrypted member": with_bytes(encrypt),
    "another name in the local header": with_bytes(mismatch_local_header),
    "cut off": with_bytes(lambda content: bytes(content[:-200])),
    "without weights": with_member("archive/data/0", None),
    "short weights": with_member("archive/data/0", lambda content: content[:-4]),
    "long weights": with_member("archive/data/0", lambda content: content + bytes(4)),
    "without code": with_member(CODE, None),
    "without a version": with_member("archive/version", None),
    "two versions": with_entries(("archive/.data/version", b"3\n")),
    "an odd version": with_member("archive/version", b"99999999999999999999\n"),
    "another byte order": with_member("archive/byteorder", b"big"),
    "code that is no text": with_member(CODE, bytes(range(256))),
    "a bomb": lambda members: with_entries(compression=zipfile.ZIP_DEFLATED)(
        {name: data for name, data in members.items() if "/data/" not in name} | {CODE: bytes(64 << 20)}
    ),
    "a class that PyTorch has in C++": with_entries(
        (
            "archive/code/__torch__/torch/classes/quantized.py",
            b"class Conv2dPackedParamsBase(Module):\n  pass\n",
        )
    ),
    "a class whose fields PyTorch changes": with_entries(
        (
            "archive/code/__torch__/torch/nn/quantized/modules/___torch_mangle_7/linear.py",
            b"class LinearPackedParams(Module):\n  _packed_params : Tensor\n",
        )
    ),
    "a module among the parameters": with_member(
        CODE, lambda content: content.replace(b"__parameters__ = []", b'__parameters__ = ["features", ]')
    ),
    "metadata without end": with_member("archive/extra/t3ssfast.json", b"[" * 100_000),
    "metadata of another kind": with_member("archive/extra/t3ssfast.json", b'{"kind": "\\ud800"}'),
    "constants that call": with_member(CONSTANTS, PICKLES["posix.system"]),
    "constants that are none": with_member(CONSTANTS, pickled(b"N")),
    "constants of objects": with_member(CONSTANTS, pickled(b"(c__torch__\nA\n)\x81}(ubt")),
    "constants of functions": with_member(CONSTANTS, pickled(b"(cposix\nsystem\nt")),
}

HOSTILE = {
    **{
        f"statement: {s.splitlines()[0][:50]} ({k})": with_member(
            CODE, lambda content, s=s: content.replace(LINE.encode(), f"    {s}\n{LINE}".encode())
        )
        for k, s in enumerate(STATEMENTS)
    },
    **{
        f"definition: {d.splitlines()[0][:50]} ({k})": with_member(
            CODE, lambda content, d=d: content.rstrip() + f"\n{d}\n".encode()
        )
        for k, d in enumerate(DEFINITIONS)
    },
    **{f"pickle: {name}": with_member(DATA, content) for name, content in PICKLES.items()},
    **{f"edited pickle: {name}": with_member(DATA, change) for name, change in EDITS.items()},
    **{f"archive: {name}": build for name, build in ARCHIVES.items()},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_or_harmless(tmp_path, monkeypatch, benign, name):
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(HOSTILE[name](benign))
    message = ""
    try:
        module = load_model("model.pt", model_kind="classifier").module
        with torch.no_grad():
            assert torch.isfinite(module(torch.zeros(2, 1, 50, 50))).all()
    except ModelError as error:
        message = str(error)
        assert len(message) < 600
        assert message.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"], "a file was written"
    assert [path.name for path in tmp_path.parent.iterdir() if "CANARY" in path.name] == []
    assert message.isprintable(), "the message must be one printable line"
    if name.startswith("statement") and "CANARY" in name:
        assert "is refused" in message


class Writer(nn.Module):
    """A classifier that writes a file when it is loaded."""

    def __init__(self, canary: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2500, 2))
        self.canary = canary

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return (self.weight, self.canary, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.weight = state[0]
        self.canary = state[1]
        self.training = state[2]
        torch.save([1], self.canary)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def test_hostile_file_runs_only_if_trusted(tmp_path):
    canary = tmp_path / "canary"
    with quiet_torchscript():
        torch.jit.script(Writer(str(canary))).save(tmp_path / "writer.pt")
    assert not canary.exists()
    with pytest.raises(ModelError, match=r"is refused: .* is damaged") as caught:
        load_model(tmp_path / "writer.pt", model_kind="classifier")
    assert "--trust-model" in str(caught.value)
    assert not canary.exists()
    with pytest.warns(UserWarning, match="metadata"), pytest.warns(TrustWarning, match="unchecked"):
        load_model(tmp_path / "writer.pt", model_kind="classifier", trust_model=True)
    assert canary.exists()


def test_exported_archives_are_loaded_only_if_trusted(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    path = tmp_path / "model.pt2"
    sizes = {
        0: torch.export.Dim("n", max=64),
        2: torch.export.Dim("h", max=4096),
        3: torch.export.Dim("w", max=4096),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.zeros(2, 1, 64, 48),), dynamic_shapes=(sizes,))
        torch.export.save(program, path, extra_files={"t3ssfast.json": '{"kind": "segmenter"}'})
    with pytest.raises(ModelError, match=r"torch\.export archive, which can run any code"):
        load_model(path, model_kind="segmenter")
    with pytest.warns(TrustWarning, match="unchecked"):
        loaded = load_model(path, model_kind="segmenter", trust_model=True)
    x = torch.randn(1, 1, 32, 40)
    with torch.inference_mode():
        assert torch.equal(loaded.module(x), model(x))
        torch.testing.assert_close(loaded.frozen(x), model(x))
    path.write_bytes(b"PK")
    with pytest.warns(TrustWarning), pytest.raises(ModelError, match="cannot be loaded"):
        load_model(path, model_kind="segmenter", trust_model=True)


# ------------------------------------------------------------------------------------------- mutated archives


def run_mutations(count, seed, folder):
    """Load mutated archives in a new process, because a crash would end it."""
    script = Path(__file__).parent / "mutate_archives.py"
    done = subprocess.run(
        [sys.executable, script, str(count), str(seed), str(folder)],
        env=os.environ | {"PYTHONPATH": search_path()},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, loaded = map(int, done.stdout.split())
    assert refused + loaded == count
    assert refused > count // 2


def test_mutated_archives_never_crash(tmp_path, soak):
    run_mutations(2000 if soak else 150, 1, tmp_path)
