"""Statements of foreign models: PyTorch's answers or a refusal, soon and in little memory."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archive_bases import lenet_archive
from archive_tree import Archive as Tree
from archive_tree import Call, Global, Object
from hostile_code import HERE, with_code
from run_foreign import sentence_faults
from safetensors.torch import save

from t3ssfast.errors import ModelError
from t3ssfast.models import LeNet, ModelMetadata, load_model, trial
from t3ssfast.models.fitting import ModelReading
from t3ssfast.models.foreign import Archive, Refusal, ShapeError, TranslatedModel

WINDOWS = torch.randn(2, 1, 50, 50, generator=torch.Generator().manual_seed(3))


def translated(content: bytes) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = TranslatedModel(Archive(content, "t3ssfast.json"))(WINDOWS.clone())
    return answer


def by_pytorch(content: bytes) -> torch.Tensor:
    module = torch.jit.load(io.BytesIO(content)).eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        answer: torch.Tensor = module(WINDOWS.clone())
    return answer


# ---------------------------------------------------------------------------------------- PyTorch's answers

# `k` multiplies the windows.
ANSWERED = [
    "k = torch.floordiv(1.0, 0.1)",
    "k = torch.floordiv(-7, 2)",
    "k = torch.remainder(-7, 2)",
    "k = torch.div(7, 2)",
    "k = torch.round(2.5)",
    "k = torch.round(-3.5)",
    "k = torch.floor(-2.5)",
    "k = torch.ceil(-2.5)",
    "k = int(-2.7)",
    "k = torch.pow(2, 3)",
    "k = torch.pow(2., -2)",
    "k = ops.prim.min([3, 1])",
    "k = ops.prim.max(3, 5)",
    "k = torch.len(torch.slice([1, 2, 3, 4], -3, None, 2))",
    "k = torch.len(torch.slice([1, 2, 3, 4], 9, -9))",
    "a = [1, 2, 3]\nb = a\n_a = torch.append(b, 4)\nk = torch.len(a)",
    "a = [1, 2, 3]\nb = torch.list(a)\n_a = torch.append(b, 4)\nk = torch.len(a)",
    "a = [1, 2, 3]\ntorch.insert(a, -2, 9)\nk = a[1]",
    "a = [1, 2, 3]\nb = torch.pop(a, 0)\nk = torch.add(b, torch.len(a))",
    # Numbers in tensors without axes, as traces hold sizes.
    "k = int(torch.floor(torch.mul(torch.to(ops.prim.NumToTensor(100), 6), 0.57)))",
    "k = int(torch.floor(torch.mul(ops.prim.NumToTensor(100), 0.57)))",
    "k = int(torch.mul(ops.prim.NumToTensor(0.57), 100))",
    "k = int(torch.mul(ops.prim.NumToTensor(50), ops.prim.NumToTensor(0.7)))",
    "k = int(torch.floor_divide(ops.prim.NumToTensor(-7), 2))",
    "k = int(torch.remainder(ops.prim.NumToTensor(-7), 2))",
    "k = int(torch.round(ops.prim.NumToTensor(2.5)))",
    "k = ops.prim.NumToTensor(2)\ny = torch.mul(windows, k)\n_a = torch.add_(k, 3)\nk = torch.mul(y, k)",
    # In place, on views and views of views.
    "k = torch.relu(windows)\nb = torch.slice(k, 2, 10, 30)\n_a = torch.add_(torch.select(b, 3, 5), 7)",
    "_a = torch.mul_(torch.slice(windows, 3, 0, -20, 3), 2.)\nk = 1",
    "a = torch.relu(windows)\nb = torch.detach(a)\n_a = torch.sub_(b, 0.5)\nwindows = a\nk = 1",
    "k = torch.mean(torch.var(windows, [2, 3]))",
    "k = torch.mean(torch.std(windows, 3, False, True))",
    "k = torch.mean(torch.squeeze(torch.slice(windows, 0, 0, 1), []), [0])",
    "k = torch.mean(torch.avg_pool2d(windows, [3, 3], [2, 2], [1, 1], True, False))",
    "k = torch.mean(torch.max_pool2d(windows, [3, 3], [2, 2], [1, 1], [1, 1], True))",
    "k = torch.mean(torch.conv2d(windows, torch.slice(windows, 2, 0, 4), None, [1, 1], \"same\"))",
    "k = torch.mean((torch.chunk(windows, 7, 3))[-1])",
    "k = torch.mean(torch.pad(windows, [-3, 5, 2, 0], \"reflect\"))",
    "k = torch.mean(torch.upsample_bilinear2d(windows, None, False, [1.3, 0.77]))",
    "k = torch.add(ops.prim.NumToTensor(0.1), torch.mean(windows))",
    "k = torch.mean(torch.clamp(windows, None, torch.mean(windows)))",
]  # fmt: skip
# Answered otherwise than by PyTorch, or with an error that is not one of reading.
REFUSED = [
    "k = ops.prim.min([ops.prim.min([3, 1], [2, 5])])",
    "k = torch.len(torch.format(\"{}\", 1.0))",
    "k = 1\nif torch.eq(torch.format(\"{}\", 1.0), \"1.0\"):\n  k = 5\nelse:\n  pass",
    "k = torch.to(windows, 6, False, True)",
    "k = torch.type_as(windows, ops.prim.NumToTensor(3))",
    "k = ops.prim.dtype(ops.prim.NumToTensor(True))",
    "k = torch.pow(-8., 0.5)",
    "k = torch.sqrt(-1.)",
    "k = torch.slice([1, 2], 0, 2, 0)",
    "k = int(nan)",
    "k = torch.split(\"a b\", \" \")",
    "k = torch.add(\"a\", \"b\")",
    "k = torch.cat_([windows], 0)",
    "k = torch.reshape_(windows, [2, -1])",
    "k = torch.clamp(torch.mean(windows), torch.add(windows, 0))",
    "k = torch.reflection_pad2d(torch.flatten(windows, 1), [1, 1])",
    "k = torch.narrow(windows, 2, ops.prim.NumToTensor(torch.mean(windows)), 1)",
    "k = torch.roll(windows, [])",
    "k = torch.floor_divide(ops.prim.NumToTensor(-9223372036854775807), -1)",
    "k = windows + 0x" + "F" * 9000,
]  # fmt: skip


def number(statements: str) -> bytes:
    return with_code(f"{statements}\nwindows = torch.mul(windows, k)").to_bytes()


# Of PyTorch 2.15.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("statements", ANSWERED)
def test_statements_give_torchs_answers(statements: str) -> None:
    content = number(statements)
    assert torch.equal(translated(content), by_pytorch(content))


@pytest.mark.parametrize("statements", REFUSED, ids=lambda text: text[:60])
def test_statements_without_torchs_answers_are_refused(statements: str) -> None:
    with pytest.raises((Refusal, ShapeError)):
        translated(number(statements))


def with_fields(statements: str, **fields: object) -> Tree:
    archive = with_code(statements)
    archive.data.fields = {**archive.data.fields, **fields}
    return archive


@pytest.mark.parametrize(
    "statements",
    [
        "_a = torch.append(self.held, 4)\nwindows = torch.mul(windows, torch.len(self.held))",
        "_a = torch._set_item(self.held, 0, 4)",
        "_a = torch.append((self.nested)[0], 4)",
        "_a = torch.pop(self.table, \"a\")",
    ],
)  # fmt: skip
def test_lists_of_the_model_are_not_changed(statements: str) -> None:
    table = Call(Global("collections", "OrderedDict"), [])
    content = with_fields(statements, held=[1, 2], nested=[[1], [2]], table=table).to_bytes()
    model = TranslatedModel(Archive(content, "t3ssfast.json"))
    for _ in range(2):
        with pytest.raises(Refusal):
            model(WINDOWS)


def test_tensors_of_one_name_are_refused() -> None:
    archive = lenet_archive()
    weight, bias = archive.tensors()[:2]
    archive.data.fields = {**archive.data.fields, "a": [weight], "a.0": bias}
    with pytest.raises(Refusal, match="two tensors"):
        TranslatedModel(Archive(archive.to_bytes(), "t3ssfast.json"))


# ----------------------------------------------------------------------------------------- time and memory

LOOP = "for i in range(9000):\n  for j in range(9000):\n    "
LONG = "a = torch.mul([1], 9999)\nt = []\n"
BOMBS = {
    "contains": f"{LONG}{LOOP}_a = torch.__contains__(a, 2)",
    "equal": f"{LONG}b = torch.list(a)\n{LOOP}_a = torch.eq(a, b)",
    "largest": f"{LONG}{LOOP}_a = ops.prim.max(a)",
    "copies": f"{LONG}{LOOP}_a = torch.append(t, torch.list(a))",
    "slices": f"{LONG}{LOOP}_a = torch.append(t, torch.slice(a, 1))",
    "products": f"t = []\n{LOOP}_a = torch.append(t, torch.mul([1], 9999))",
    "texts": f"t = []\n{LOOP}_a = torch.append(t, torch.format(\"{'x' * 9999}{{}}\", i))",
    "long text": f"{LOOP}_a = torch.format(\"{'{}' * 200_000}\"{', 1' * 5000})",
    "long field": f"{LOOP}_a = torch.len(self.held)",
    "changing field": f"{LOOP}_a = torch.append(self.held, 1)",
    "kinds of arguments": f"{LONG}{LOOP}_a = torch.mean(windows, a)",
    "parts": f"a = torch.expand(torch.mean(windows), [1024])\n{LOOP}_a = torch.unbind(a)",
    "joined": f"t = torch.mul([windows], 1000)\n{LOOP}_a = torch.cat(t, 0)",
    "weights": "w = torch.expand(torch.sum(self.weight), [4000, 4000])\nt = []\n"
    f"{LOOP}_a = torch.append(t, torch.exp(w))",
    "stride": "w = torch.slice(torch.slice(torch.slice(windows, 0, 0, 1), 2, 0, 1), 3, 0, 2)\n"
    "x = torch.slice(torch.slice(windows, 3, 0, 1), 2, 0, 9)\n"
    "k = torch.convolution(x, w, None, [1, 65537], [0, 1], [1, 1], True, [0, 1], 1)",
    "steps": f"{LOOP}pass",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_loops_end_soon(name: str) -> None:
    archive = with_fields(BOMBS[name], held=[1] * 200_000)
    archive.data.fields["weight"] = archive.tensors()[0]
    content = archive.to_bytes()
    start = time.process_time()
    with pytest.raises((Refusal, ShapeError)):
        translated(content)
    assert time.process_time() - start < 2


def memory(function: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises((Refusal, ModelError)):
            function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def chain(depth: int, name: str) -> Tree:
    archive = lenet_archive()
    inner = Object(Global(HERE, "M"), {"training": False})
    for _ in range(depth):
        inner = Object(Global(HERE, "M"), {name: inner})
    archive.data.fields = {**archive.data.fields, "deep": inner}
    return archive


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(300, "x" * 100_000),
        lambda: with_fields("", many=[Object(Global(HERE, "M"), {"a": 1})] * 600_000),
    ],
    ids=["long names", "many values"],
)
def test_modules_in_modules_take_little_memory(make: Callable[[], Tree]) -> None:
    content = make().to_bytes()
    start = time.process_time()
    assert memory(lambda: Archive(content, "t3ssfast.json").state()) < 3e8
    assert time.process_time() - start < 6  # tracemalloc makes everything slower


# ------------------------------------------------------------------------------ other ways into the program


def weights_file(
    change: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.contiguous, **fields: object
) -> bytes:
    """A safetensors file of a LeNet, with other fields in its metadata."""
    options = {"channels": [6, 16], "hidden": [120, 84], "classes": 2, "window": 50}
    document = json.loads(ModelMetadata("classifier", window_px=50).to_json())
    document |= {"architecture": {"name": "LeNet", **options}} | fields
    state = {name: change(tensor) for name, tensor in LeNet().state_dict().items()}
    return save(state, metadata={"t3ssfast.json": json.dumps(document)})


MARKUP = "<b>\x1b[2J" * 1000


@pytest.mark.parametrize(
    "make",
    [
        lambda: weights_file(torch.Tensor.int),
        lambda: weights_file(architecture={"name": "LeNet", MARKUP: 1}),
        lambda: weights_file(contrast=MARKUP),
        lambda: weights_file(model_kind=[MARKUP]),
        lambda: weights_file(normalisation={"highpass_nm": MARKUP}),
    ],
    ids=["integers", "options", "contrast", "model kind", "normalisation"],
)
def test_weights_files_are_refused_in_a_sentence(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make())
    with pytest.raises(ModelError) as caught:
        load_model(path, model_kind="classifier")
    assert sentence_faults(str(caught.value)) == []


def test_names_of_classes_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_file(classes=[MARKUP, "t3ss"]))
    with pytest.raises(ModelError) as caught:
        load_model(path, model_kind="classifier", target_class="motor")
    assert sentence_faults(str(caught.value)) == []


def test_huge_directories_take_little_memory(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/x", b"")
    start = content.getvalue().index(b"PK\1\2")
    end = content.getvalue().index(b"PK\5\6")
    count = 200_000
    directory = content.getvalue()[start:end] * count
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
    zip64 += struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "model.pt"
    path.write_bytes(content.getvalue()[:start] + directory + zip64 + last)
    assert memory(lambda: load_model(path, model_kind="classifier")) < 6e7


def test_tensors_without_elements_have_ordinary_shapes() -> None:
    archive = lenet_archive()
    arguments = archive.tensors()[0].arguments
    arguments[2:4] = (0, *[2**39] * 7), (1,) * 8
    with pytest.raises(Refusal):
        Archive(archive.to_bytes(), "t3ssfast.json").state()


def test_an_interrupted_trial_answers_for_no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    content = lenet_archive().to_bytes()
    trial.try_in_child(content, "a.pt", "classifier", ModelReading())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trial.select, "select", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trial.try_in_child(content, "b.pt", "classifier", ModelReading(output="logits"))
    assert trial._child.process is None


def test_a_trial_that_gets_no_time_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine is no fault of the file.
    monkeypatch.setattr(trial.select, "select", lambda *_: ([], [], []))
    with pytest.raises(ModelError, match="got no answer from its trial in 600 s; load it again"):
        trial.try_in_child(lenet_archive().to_bytes(), "c.pt", "segmenter", ModelReading())
    assert trial._child.process is None


@pytest.mark.parametrize("status", [trial.IDLE_EXIT, 1, -9])
def test_a_trial_that_ends_idle_as_a_file_comes_is_started_again(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    ending = f"os.kill(os.getpid(), {-status})" if status < 0 else f"os._exit({status})"
    code = (
        "import os, sys\n"
        "read = sys.stdin.buffer.read\n"
        "for _ in range(2):\n"
        "    read(int.from_bytes(read(8), 'little'))\n"
        f"{ending}\n"
    )
    child, start, started = trial._Child(), trial._Child.start, 0

    def start_one_that_ends(self: trial._Child) -> subprocess.Popen[bytes]:
        nonlocal started
        started += 1
        if started > 1:
            return start(self)
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe)

    monkeypatch.setattr(trial._Child, "start", start_one_that_ends)
    monkeypatch.setattr(trial, "_child", child)
    try:
        if status == trial.IDLE_EXIT:
            trial.try_in_child(lenet_archive().to_bytes(), "d.pt", "classifier", ModelReading())
            assert started == 2
        else:
            with pytest.raises(ModelError, match="the process that tried it crashed"):
                trial.try_in_child(lenet_archive().to_bytes(), "d.pt", "classifier", ModelReading())
            assert started == 1
    finally:
        child.stop()


def test_an_idle_trial_ends_by_itself() -> None:
    code = "from t3ssfast.models import trial; trial.IDLE_SECONDS = 0.01; trial._serve()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.wait(240) == trial.IDLE_EXIT
