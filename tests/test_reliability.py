"""The promises of docs/reliability.md that belong to no one module, each with its count."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import t3ssfast as t3
from t3ssfast.cli import app
from t3ssfast.cli.detect import _folders
from t3ssfast.errors import InputError, ModelError, OutputError, T3Error
from t3ssfast.export import export, load_all_candidates
from t3ssfast.figures import draw_candidates
from t3ssfast.io import read, write
from t3ssfast.models import LeNet, ModelMetadata, load_model, save_model
from t3ssfast.models.torchscript import quiet_torchscript
from t3ssfast.statistics import window_statistics
from t3ssfast.types import Candidates, DetectConfig, Tomogram
from t3ssfast.windows import unfold
from toy import save_toy_models, toy_tomogram

# ------------------------------------------------------------------------------------ a model that is wrong


class Answering(nn.Module):
    """Turns windows (M, 1, 50, 50) into whatever is asked of it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.layer = nn.Linear(2500, 2)

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.layer(x.flatten(1))
        if self.how == "nan":
            answers = answers / torch.zeros_like(answers)
        if self.how == "integers":
            answers = answers.to(torch.int64)
        if self.how == "one row":
            answers = answers.mean(0, keepdim=True)
        if self.how == "three axes":
            answers = answers.unsqueeze(2)
        if self.how == "device":
            answers = answers.to(torch.device("cuda:7"))
        if self.how == "double":
            answers = answers.to(torch.float64) @ torch.ones((2, 2))
        if self.how == "random":
            answers = torch.dropout(answers, 0.5, True)
        if self.how == "batch":
            answers = answers - answers.mean(0, keepdim=True)
        if self.how == "slow":
            for _ in range(1_000_000_000):
                answers = answers + 1
        return answers


def classifier(how: str) -> nn.Module:
    torch.manual_seed(0)
    return Answering(how)


def frozen_doubles() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(classifier("").double().eval()))


# What is wrong with it: a module, and words of the sentence.
WRONG = {
    "three channels": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "does not take windows"),
    "another window": (lambda: LeNet((2, 3), (8, 6), window=40), "does not take windows"),
    "three classes": (lambda: LeNet((2, 3), (8, 6), classes=3), r"answers \(2, 3\)"),
    "a segmenter": (lambda: nn.Conv2d(1, 1, 3, padding=1), r"answers \(2, 1, 50, 50\)"),
    "three axes": (lambda: classifier("three axes"), r"answers \(2, 2, 1\)"),
    "one row for a batch": (lambda: classifier("one row"), r"answers \(1, 2\)"),
    "NaN": (lambda: classifier("nan"), "NaN or infinity"),
    "integers": (lambda: classifier("integers"), "floating-point"),
    "another device": (lambda: classifier("device"), "does not take windows"),
    "float64 half way": (lambda: classifier("double"), "does not take windows"),
    "float64 weights, frozen": (frozen_doubles, "does not take windows"),
    "dropout that stays on": (lambda: classifier("random"), "differently when asked again"),
    "batch statistics that stay on": (lambda: classifier("batch"), "in a batch"),
    "an answer that does not come": (lambda: classifier("slow"), "within 0.5 s"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_is_wrong_says_so(tmp_path, name, monkeypatch):
    make, words = WRONG[name]
    said = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    if name == "an answer that does not come":
        # Nobody can stop it; it ends with the process.
        run = f"""
            import torch, test_reliability as t
            from t3ssfast.models import load_model, probe
            import sys; sys.modules["t3ssfast.models.probe"].PROBE_SECONDS = 0.5
            t.save_model(t.classifier("slow"), {str(tmp_path / "slow.pt")!r}, t.ModelMetadata("classifier"))
            try:
                load_model({str(tmp_path / "slow.pt")!r}, kind="classifier")
            except t.ModelError as error:
                assert "within 0.5 s" in str(error), str(error)
                import os; os._exit(0)
            """
        assert python(run).returncode == 0
        return
    with quiet_torchscript():
        module = make()
        if isinstance(module, torch.jit.ScriptModule):
            path = tmp_path / "model.pt"
            torch.jit.save(module, path, _extra_files={"t3ssfast.json": said.to_json()})
        else:
            path = tmp_path / "model.pt"
            save_model(module, path, said)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(path, kind="classifier")
    assert str(caught.value).isprintable()


def test_weights_in_float64_and_training_mode_are_put_right(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2500, 2)).double().train()
    said = ModelMetadata("classifier", window_px=50, classes=("background", "t3ss"))
    with quiet_torchscript():
        script = torch.jit.script(module)
        torch.jit.save(script, tmp_path / "model.pt", _extra_files={"t3ssfast.json": said.to_json()})
    loaded = load_model(tmp_path / "model.pt", kind="classifier").module
    x = torch.randn(3, 1, 50, 50)
    torch.testing.assert_close(loaded(x), module.float().eval()(x))


def test_there_are_twelve_ways_at_least():
    assert len(WRONG) >= 12


# ----------------------------------------------------------------------------------------- every legal layout

DTYPES = ["i1", "u1", "i2", "u2", "f2", "f4", "f8", ">f4"]
WINDOW = 5


def plain(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.ascontiguousarray(rng.integers(0, 100, (2, 14, 17)), dtype=dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def spread(array: np.ndarray) -> np.ndarray:
    """The same values as every second one of a larger array."""
    larger = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    larger[::2, ::2, ::2] = array
    return larger[::2, ::2, ::2]


LAYOUTS = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "negative stride": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "sliced": spread,
    "read-only": read_only,
    "zero-size": lambda a: a[:0],
    "one axis of stride 0": lambda a: np.broadcast_to(a[:1], a.shape),
}
SCORER = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).eval()
KERNELS = {
    "unfold": lambda a: unfold(a, WINDOW),
    "unfold, zscore": lambda a: unfold(a, WINDOW, normalise="zscore"),
    "statistics": lambda a: window_statistics(a, WINDOW, ("mean", "kurtosis", "min", "median", "q05")),
    "score, dense": lambda a: t3.score_windows(SCORER, a, size=WINDOW, plan="dense"),
    "score, windows": lambda a: t3.score_windows(SCORER, a, size=WINDOW, plan="windows"),
    "score, auto": lambda a: t3.score_windows(SCORER, a, size=WINDOW),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_gives_the_right_answer(kernel, dtype):
    run = KERNELS[kernel]
    for name, layout in LAYOUTS.items():
        given = layout(plain(dtype))
        before = given.copy()
        want = run(np.ascontiguousarray(given, dtype=np.float32))
        np.testing.assert_array_equal(run(given), want, err_msg=name)
        np.testing.assert_array_equal(given, before)
        assert (want.size == 0) == (given.size == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_more_than_two_to_the_31_elements(kernel):
    """The last windows of an array that only seems to be there: pages never written cost nothing."""
    shape = (2**31 // (1024 * 1024) + 2, 1024, 1024)
    image = np.zeros(shape, np.float32)
    assert image.size > 2**31
    image[-1, -40:, -40:] = np.random.default_rng(0).normal(size=(40, 40))
    mask = np.zeros((shape[0], 1024 - WINDOW + 1, 1024 - WINDOW + 1), bool)
    mask[-1, -30:, -30:] = True
    mask[0, :3, :3] = True
    runs = {
        "unfold": lambda a, m: unfold(a, WINDOW, mask=m),
        "unfold, zscore": lambda a, m: unfold(a, WINDOW, mask=m, normalise="zscore"),
        "statistics": lambda a, m: window_statistics(a, WINDOW, ("mean", "std", "max", "median"), mask=m),
        "score, dense": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m, plan="dense"),
        "score, windows": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m, plan="windows"),
        "score, auto": lambda a, m: t3.score_windows(SCORER, a, size=WINDOW, mask=m),
    }
    got = np.asarray(runs[kernel](image, mask))
    ends = image[[0, -1]]
    np.testing.assert_array_equal(got, np.asarray(runs[kernel](ends, mask[[0, -1]])))


# ------------------------------------------------------------------------------------------ threads and forks


def python(script: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with the tests to import from."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": path},
        timeout=250,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_eight_threads_at_once_get_what_one_gets():
    images = [np.random.default_rng(k).normal(size=(2, 60, 70)).astype(np.float32) for k in range(8)]
    want = [[np.asarray(run(image)) for run in KERNELS.values()] for image in images]
    got: list[list[np.ndarray] | None] = [None] * 8
    together = threading.Barrier(8)

    def work(k: int) -> None:
        together.wait()
        got[k] = [np.asarray(run(images[k])) for run in KERNELS.values()]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(want, got, strict=True):
        assert other is not None
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def fork_after_openmp(count: int) -> None:
    script = f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, torch
        import test_reliability as t
        torch.set_num_threads(2)
        image = np.random.default_rng(0).normal(size=(2, 60, 60))
        for number in range({count}):
            for run in t.KERNELS.values():
                run(image)
            child = os.fork()
            if child == 0:
                # What a child may use are this package's kernels; PyTorch's own need a process of their own.
                a = t.window_statistics(image, 9)
                b = t.unfold(image, 9)
                os._exit(0 if np.isfinite(a).all() and np.isfinite(b).all() else 3)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                sys.exit(code)
        """
    assert python(script).returncode == 0


def test_forks_after_openmp_do_not_hang():
    fork_after_openmp(5)


@pytest.mark.slow
def test_fifty_forks_after_openmp_do_not_hang():
    fork_after_openmp(50)


def test_an_interrupt_stops_a_detection(tmp_path):
    # The bundled U-Net takes many times as long for so many slices as the interrupt waits.
    noise = np.random.default_rng(1).normal(0, 20, (100, 512, 512)).clip(-127, 127).astype(np.int8)
    write(tmp_path / "noise.mrc", noise, 13.6)
    script = f"""
        import signal, sys
        from t3ssfast.cli import app
        # What runs in a shell's background is born deaf to interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("ready", flush=True)
        sys.exit(app(["detect", {str(tmp_path / "noise.mrc")!r}, "-o", {str(tmp_path / "out")!r}]))
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert said.strip().endswith("interrupted")
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "provenance.json").exists()


# ------------------------------------------------------------------------------ names cannot escape or inject

PIECES = [
    *("../", "..\\", "/", "/etc/passwd", "\\\\host\\share\\", "C:", "~/", "./", ".", "..", "-rf ", "--help"),
    *("\n", "\r\n", "\t", "\0", "\x1b[31m", "\x7f", "\u2028", "\u202e", "\ufeff", "\ud800"),
    *(
        "data_x\n\nloop_\n",
        "loop_",
        "_rlnTomoName #1\n",
        "# ",
        ";",
        "save_",
        "'",
        '"',
        "''",
        '""',
        "' \"",
        "`",
    ),
    *("=1+1", "+1", "-1+2", "@SUM(A1)", "=HYPERLINK('x')", ",", ",,", "\n0,0,0", '",', "|", "\t0\t0"),
    *("<script>", "</title>", "&amp;", "<img src=x onerror=x>", "javascript:", "{{7*7}}", "${x}", "%s", "%n"),
    *("$(touch x)", "`touch x`", "; touch x", "| touch x", "&& touch x", "$HOME", "*", "?", "[a]", "[bold]"),
    *(
        '"}',
        '{"a": 1}',
        "\\",
        "\\n",
        "\\u0000",
        "null",
        "NaN",
        "1e999",
        "true",
        "0x10",
        "",
        " ",
        "a b",
        "CON",
    ),
    *(
        "\N{SNOWMAN}",
        "\N{COMBINING ACUTE ACCENT}",
        "e\u0301",
        "\N{FULLWIDTH SOLIDUS}",
        "a" * 300,
        "$\\frac{$",
    ),
]
NAMES = [
    *PIECES,
    *(f"TS{a}{b}" for a, b in itertools.islice(itertools.product(PIECES[::2], PIECES[1::3]), 300)),
]
FILES = {"relion5": "a.star", "csv": "a.csv", "copick": "run", "dynamo": "a.tbl", "coords": "a.txt"}


def candidates_named(name: str) -> Candidates:
    return Candidates(
        centre_zyx=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        score=np.array([0.9, 0.8]),
        normal_zyx=np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        voxel_size_angstrom=10.0,
        tomogram_shape=(20, 30, 40),
        tomogram_name=name,
        kind=np.array([name[:30] or "t3ss", "t3ss"]),
    )


def test_there_are_three_hundred_names():
    assert len(set(NAMES)) >= 300


def export_under_names(names: list[str], format: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for name in names:
        folder.mkdir()
        target = folder / FILES[format]
        try:
            export(candidates_named(name), target, format)
            found = load_all_candidates(target)
        except (T3Error, UnicodeEncodeError):
            if "\ud800" not in name:
                raise
            # A lone surrogate is no text: no format can hold it.
            found = []
        assert "\ud800" in name or [len(some) for some in found] == [2], name
        for some in found:
            np.testing.assert_allclose(some.centre_zyx, [[1, 2, 3], [4, 5, 6]], atol=1e-3, err_msg=repr(name))
        assert {path.name for path in tmp_path.iterdir()} == {"out"}, name
        if format == "csv" and target.exists():
            rows = target.read_text().splitlines()[1:]
            cells = [cell.lstrip('"') for row in rows for cell in row.split(",")[10:12]]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))], name
        if format == "copick":
            assert all(path.parent.name == "Picks" for path in folder.rglob("*.json"))
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


@pytest.mark.parametrize("format", FILES)
def test_names_cannot_escape_or_inject(tmp_path, format):
    export_under_names(PIECES, format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
def test_three_hundred_names_cannot_escape_or_inject(tmp_path, format):
    export_under_names(NAMES, format, tmp_path)


def test_names_of_files_stay_in_the_folder_of_results(tmp_path):
    out = tmp_path / "out"
    for name in NAMES:
        try:
            folders = _folders([Path("x") / name, Path("other.mrc")], out)
        except InputError:
            continue
        for folder in folders:
            assert folder.parent == out, name
            assert folder.name not in ("", ".", "..")


def test_names_are_one_line_wherever_they_are_told(tmp_path):
    for name in NAMES:
        with pytest.raises(T3Error) as caught:
            read(tmp_path / name / "none.mrc")
        assert str(caught.value).isprintable()
    for name in ("a\nb", "\x1b[31m", "[bold]", "{{7*7}}"):
        result = CliRunner().invoke(app, ["doctor", "--json", str(tmp_path / name / "none.mrc")])
        assert result.exit_code == 1
        ((shown, checks),) = json.loads(result.stdout)["files"].items()
        assert shown.isprintable()
        assert checks[0]["note"].isprintable()


def test_names_in_pictures(tmp_path):
    volume = np.zeros((3, 40, 40), np.float32)
    for name in NAMES[:: len(NAMES) // 12]:
        tomogram = Tomogram(volume, 10.0, name)
        some = replace(
            candidates_named("a"), tomogram_shape=volume.shape, centre_zyx=np.array([[1, 2, 3], [1, 5, 6]])
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
            draw_candidates(tmp_path / "a.png", tomogram, some)
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_provenance_is_json_whatever_the_name(tmp_path):
    for name in PIECES[::10]:
        detection = t3.Detection(candidates_named(name), None, {"input": {"name": name}})
        detection.save(tmp_path)
        assert json.loads((tmp_path / "provenance.json").read_text())["input"]["name"] == name


# ----------------------------------------------------------------------------------- kills and full disks

TABLES = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")


def results(number: int) -> t3.Detection:
    """Results that can be told from those of another number in every file."""
    some = candidates_named(f"TS_{number}")
    some = replace(some, score=some.score - 0.1 * number, centre_zyx=some.centre_zyx + number)
    membrane = np.full((20, 300, 400), number, np.uint8)
    return t3.Detection(some, membrane, {"number": number})


def kill_while_saving(times: int, tmp_path: Path) -> None:
    whole: dict[str, set[bytes]] = {name: set() for name in TABLES}
    for number in (0, 1):
        results(number).save(tmp_path / f"{number}")
        for name in TABLES:
            whole[name].add((tmp_path / f"{number}" / name).read_bytes())
    out = tmp_path / "out"
    # One process that has imported everything forks those that are killed.
    script = f"""
        import itertools, os, sys, time, test_reliability as t
        both = [t.results(0), t.results(1)]
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                for number in itertools.cycle((0, 1)):
                    both[number].save({str(out)!r})
                    time.sleep(0.05)
            print(child, flush=True)
            os.waitpid(child, 0)
            print("gone", flush=True)
        """
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(times):
        parent.stdin.write("go\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        time.sleep(float(rng.uniform(0.0, 0.3)))
        os.kill(child, signal.SIGKILL)
        assert parent.stdout.readline() == "gone\n"
        done = (out / "provenance.json").exists()
        seen[done] += 1
        for name in TABLES:
            path_of = out / name
            if path_of.exists():
                assert path_of.read_bytes() in whole[name], f"{name} is torn"
        if done:
            number = json.loads((out / "provenance.json").read_text())["number"]
            for name in TABLES:
                assert (out / name).read_bytes() == (tmp_path / f"{number}" / name).read_bytes()
    parent.stdin.close()
    assert parent.wait(timeout=100) == 0
    parent.stdout.close()
    if times > 50:
        assert min(seen.values()) > 0, "kills fell on both sides of the mark"
    results(1).save(out)
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_a_kill_leaves_no_torn_file(tmp_path):
    kill_while_saving(10, tmp_path)


@pytest.mark.slow
def test_two_hundred_kills_leave_no_torn_file(tmp_path):
    kill_while_saving(200, tmp_path)


def test_a_disk_that_is_full_is_one_sentence_and_not_done(tmp_path):
    """Twenty limits on what a file may hold, each of which stops another write."""
    results(0).save(tmp_path / "want")
    largest = max((tmp_path / "want" / name).stat().st_size for name in TABLES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in np.unique(np.geomspace(1, largest - 1, 20).astype(int)).tolist():
        out = tmp_path / "out"
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OutputError) as caught:
                results(0).save(out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(caught.value).isprintable()
        assert not (out / "provenance.json").exists()
        assert not list(out.glob(".t3ssfast*")), "nothing is left over"
        results(0).save(out)
        for name in (*TABLES, "provenance.json"):
            assert (out / name).read_bytes() == (tmp_path / "want" / name).read_bytes()
            (out / name).unlink()


# ------------------------------------------------------------------------------------ same input, same output


def repeat_detections(runs: int, tmp_path: Path) -> None:
    segmenter, judge = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((16, 110, 120))
    variants = itertools.cycle(
        {"threads": t, "slab_slices": s} for t, s in itertools.product([1, 2, 3, 8], [None, 1, 5, 16])
    )
    first: bytes | None = None
    for number, variant in zip(range(runs), variants, strict=False):
        found = t3.detect(
            tomogram,
            segmenter=segmenter,
            classifier=judge,
            device="cpu",
            config=DetectConfig(**variant),
            progress=False,
        )
        folder = tmp_path / f"{number}"
        found.save(folder)
        names = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")
        content = b"".join((folder / name).read_bytes() for name in names)
        assert len(found.candidates) > 0
        first = content if first is None else first
        assert content == first, variant


def test_the_same_input_gives_the_same_bytes(tmp_path):
    repeat_detections(4, tmp_path)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_twenty_times(tmp_path):
    repeat_detections(20, tmp_path)


# ---------------------------------------------------------------------------------------- imports everywhere

# Packages that may be missing.
ABSENT = ["zarr", "torch", "mrcfile", "pandas", "starfile", "dynamotable", "imodmodel", "matplotlib", "cc3d"]


@pytest.mark.parametrize(
    "module",
    [*ABSENT[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in ABSENT[3:])],
)
def test_what_is_missing_is_named_with_what_it_costs(module):
    script = f"""
        import importlib.abc, json, sys

        class Absent(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == {module!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        from t3ssfast.cli import app
        try:
            app(["doctor", "--json"])
        except SystemExit:
            pass
        """
    done = python(script, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    names = {"cc3d": "connected-components-3d"}
    check = next(c for c in report["checks"] if c["name"] == names.get(module, module))
    assert check["status"] == ("note" if module == "zarr" else "FAILED")
    assert check["note"]
    assert report["ok"] == (module == "zarr"), "only an extra can be done without"


def test_without_a_driver_everything_imports_and_says_so():
    script = """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import pkgutil, importlib, t3ssfast
        for module in pkgutil.walk_packages(t3ssfast.__path__, "t3ssfast."):
            importlib.import_module(module.name)
        from t3ssfast import build_info
        assert build_info()["cuda_devices"] == 0
        assert build_info()["cuda_problem"]
        try:
            t3ssfast.detect("none.mrc", device="cuda")
        except t3ssfast.errors.DeviceError as error:
            assert str(error).isprintable()
        else:
            raise SystemExit(3)
        """
    done = python(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
