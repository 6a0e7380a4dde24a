"""Load foreign model files in child processes with limits, call each once, and report what happened.

    python run_foreign.py [--kind KIND] [--seconds S] [--memory-gb G] FILE...
    python run_foreign.py --hostile [--only WORD]
    python run_foreign.py --seeds FIRST COUNT

prints one line per file, hostile archive, or faulty archive of the generator. `ForeignRunner` does the same
for tests. A child handles many files, and is replaced when it dies or takes too long.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

# Importing PyTorch takes seconds, minutes on a busy machine.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Outcome:
    """What one file did.

    Parameters
    ----------
    what
        "refused" (an error of t3ssfast), "answered", "failed" (any other exception), "crashed", "hung".
    sentence
        The message of the error, or the name of the signal.
    finite, shape
        Of the answer.
    seconds, peak_mb
        Wall time, and the highest resident memory beyond that of the idle child.
    printed
        What the child wrote to its terminal.
    created
        Files that appeared in the child's folder.
    answer
        The first 65,536 elements of the answer.
    """

    name: str
    what: str
    sentence: str = ""
    finite: bool = False
    shape: tuple[int, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0
    printed: str = ""
    created: tuple[str, ...] = ()
    answer: tuple[float, ...] = field(default=(), repr=False)

    def differs(self, reference: Outcome, tolerance: float = 1e-5) -> bool:
        """Whether two answers differ by more than a tolerance of their largest absolute value."""
        if self.shape != reference.shape:
            return True
        scale = max([1.0, *(abs(value) for value in reference.answer if math.isfinite(value))])
        return any(
            a != b and not (math.isnan(a) and math.isnan(b)) and not abs(a - b) <= tolerance * scale
            for a, b in zip(self.answer, reference.answer, strict=True)
        )

    def faults(self, *, seconds: float = 10.0, peak_mb: float = 1024.0, finite: bool = True) -> list[str]:
        """List what a hostile file must not do: all but being refused in one sentence, or a finite answer."""
        found = []
        if self.what not in ("refused", "answered"):
            found.append(f"{self.what}: {self.sentence[:200]!r}")
        if self.what == "answered" and finite and not self.finite:
            found.append("answered with NaN or infinity")
        if self.what == "refused":
            found += sentence_faults(self.sentence)
        if self.seconds > seconds:
            found.append(f"took {self.seconds:.1f} s")
        if self.peak_mb > peak_mb:
            found.append(f"took {self.peak_mb:.0f} MB")
        if any(not (character.isprintable() or character in "\n\t") for character in self.printed):
            found.append(f"printed {self.printed[-200:]!r}")
        if self.created:
            found.append(f"created {', '.join(self.created)}")
        return found

    def __str__(self) -> str:
        answer = (
            f"{'finite' if self.finite else 'NOT FINITE'} {self.shape} " if self.what == "answered" else ""
        )
        return (
            f"{self.name}: {self.what} in {self.seconds:.2f} s, {self.peak_mb:.0f} MB: {answer}"
            f"{self.sentence.encode('unicode_escape').decode()[:300]}"
        )


def sentence_faults(sentence: str) -> list[str]:
    """What is wrong with the message of a refusal."""
    found = []
    if not sentence.isprintable():
        found.append(f"the message is not one printable line: {sentence[:200]!r}")
    if not sentence.endswith("."):
        found.append(f"the message does not end as a sentence: {sentence[-100:]!r}")
    if len(sentence) > 600:
        found.append(f"the message has {len(sentence)} characters")
    if "<" in sentence.replace("<module>", "") and ">" in sentence:
        found.append(f"the message holds HTML: {sentence[:200]!r}")
    if re.search(r"LEAKED [-+\dnit]", sentence):
        found.append(f"the message holds what the file's code read: {sentence[:200]!r}")
    if "INTERNAL ASSERT" in sentence:
        found.append(f"the file's code reached PyTorch's interpreter: {sentence[:200]!r}")
    return found


class ForeignRunner:
    """Children that load foreign files; a context manager.

    Parameters
    ----------
    seconds
        Wall time of one file, after which its child is killed.
    memory_gb
        Address space of a child.
    by_pytorch
        Let torch.jit load and run the files, whatever they do: its answers are the reference of ours.
    """

    def __init__(self, *, seconds: float = 60.0, memory_gb: float = 8.0, by_pytorch: bool = False) -> None:
        self.seconds = seconds
        self.by_pytorch = by_pytorch
        self.memory_gb = memory_gb
        self.started = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._terminal = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the runner
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> ForeignRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop()
        self._terminal.close()
        self._folder.cleanup()

    def run(self, path: Path, model_kind: str, name: str = "") -> Outcome:
        """Load and call one file."""
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None
        assert child.stdin is not None
        self._terminal.seek(0)
        self._terminal.truncate()
        start = time.monotonic()
        name = name or path.name
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(
                json.dumps([str(path.resolve()), model_kind, self.seconds, self.by_pytorch]).encode() + b"\n"
            )
            child.stdin.flush()
        line = self._read(self.seconds)
        seconds = time.monotonic() - start
        self._terminal.seek(0)
        printed = self._terminal.read(100_000).decode(errors="replace")
        created = self._created()
        if line:
            answer = json.loads(line)
            answer["shape"] = tuple(answer.get("shape", ()))
            answer["answer"] = tuple(array("f", base64.b64decode(answer.get("answer", ""))))
            return Outcome(name, seconds=seconds, printed=printed, created=created, **answer)
        if line is None:
            self._stop()
            return Outcome(
                name,
                "hung",
                f"no answer in {self.seconds:g} s",
                seconds=seconds,
                printed=printed,
                created=created,
            )
        status = child.wait()
        self._stop()
        sentence = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        last = printed.strip().splitlines()[-1:] if printed else []
        return Outcome(
            name, "crashed", " ".join([sentence, *last]), seconds=seconds, printed=printed, created=created
        )  # fmt: skip

    def run_bytes(self, content: bytes, model_kind: str, name: str) -> Outcome:
        """Write a file, load and call it; the file is named "model.pt" in its messages."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            path.write_bytes(content)
            return self.run(path, model_kind, name)

    def _created(self) -> tuple[str, ...]:
        names = sorted(path.name for path in Path(self._folder.name).iterdir())
        for name in names:
            (Path(self._folder.name) / name).unlink()
        return tuple(names)

    def _start(self) -> None:
        reading, writing = os.pipe()
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--serve",
            str(writing),
            "--memory-gb",
            str(self.memory_gb),
        ]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._terminal, stderr=self._terminal, pass_fds=[writing],
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(part) for part in sys.path)},
        )  # fmt: skip
        os.close(writing)
        self._answers = reading
        self.started += 1
        if self._read(START_SECONDS) != b"ready\n":
            self._terminal.seek(0)
            raise RuntimeError(
                f"the child did not start: {self._terminal.read()[-2000:].decode(errors='replace')}"
            )

    def _read(self, seconds: float) -> bytes | None:
        """A line of the child: None if it takes too long, nothing if the child ended."""
        line = b""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
                part = os.read(self._answers, 65536)
                if not part:
                    return b""
                line += part
        return line

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        os.close(self._answers)


# ----------------------------------------------------------------------------------------------- in the child


def serve(answers: int, memory_gb: float) -> None:
    """Answer for every line of the standard input what the file that it names did."""
    import warnings

    import torch

    import t3ssfast.models  # noqa: F401 - imported before the first file is timed

    torch.set_num_threads(1)
    torch.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))
    # Warnings reach the terminal every time, as they would the first time.
    warnings.simplefilter("always")
    limit = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(answers, b"ready\n")
    for line in sys.stdin:
        path, model_kind, seconds, by_pytorch = json.loads(line)
        used = time.process_time()
        # A signal ends a child whose parent has died.
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + 4 * seconds) + 5, resource.RLIM_INFINITY))
        idle = reset_peak()
        answer = try_file(path, model_kind, by_pytorch)
        answer["peak_mb"] = max(0.0, peak_kb() - idle) / 1024
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(answers, json.dumps(answer).encode() + b"\n")


def try_file(path: str, model_kind: str, by_pytorch: bool) -> dict[str, Any]:
    """Load and call a file; returns fields of `Outcome`."""
    import torch

    from t3ssfast.errors import T3Error
    from t3ssfast.models import load_model

    try:
        if by_pytorch:
            module = torch.jit.load(path, map_location="cpu").eval().float()
            shape = (2, 1, 50, 50) if model_kind == "classifier" else (2, 1, 64, 64)
        else:
            loaded = load_model(path, model_kind=model_kind)
            module, side = loaded.module, loaded.metadata.window_px or 64
            shape = (2, 1 if model_kind == "classifier" else loaded.metadata.slices, side, side)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            answer = module(inputs)
        content = answer.flatten()[:65536].float().contiguous().numpy().tobytes()
        return {
            "what": "answered",
            "finite": bool(torch.isfinite(answer).all()),
            "shape": tuple(answer.shape),
            "answer": base64.b64encode(content).decode(),
        }
    except T3Error as error:
        return {"what": "refused", "sentence": str(error)}
    except BaseException as error:
        return {"what": "failed", "sentence": f"{type(error).__name__}: {str(error)[:1000]}"}


def peak_kb() -> int:
    """Highest resident memory since the last reset, where the system counts it."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak() -> int:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as counters:
        counters.write("5")
    return peak_kb()


# ----------------------------------------------------------------------------------------------- command line


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Load model files in a child process and report what they do."
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--hostile", action="store_true", help="Run the fixed hostile archives.")
    parser.add_argument("--only", default="", help="Run only hostile archives whose names hold this.")
    parser.add_argument(
        "--seeds", nargs=2, type=int, metavar=("FIRST", "COUNT"), help="Run generated archives."
    )
    parser.add_argument("--kind", default="classifier", help="Model kind of the files.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Wall time for one file.")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="Address space of the child.")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.memory_gb)
        return
    with ForeignRunner(seconds=options.seconds, memory_gb=options.memory_gb) as runner:
        for path in options.files:
            report(runner.run(path, options.kind))
        if options.hostile:
            from torchscript_grammar import hostile_archives

            for name, make in hostile_archives().items():
                if options.only in name:
                    report(runner.run_bytes(make(), options.kind, name))
        if options.seeds:
            run_seeds(runner, *options.seeds)


def run_seeds(runner: ForeignRunner, first: int, count: int) -> None:
    """Run generated archives, report the faulty ones and answers unlike PyTorch's, and count the others."""
    from torchscript_grammar import generate

    counts: Counter[str] = Counter()
    with ForeignRunner(seconds=runner.seconds, memory_gb=runner.memory_gb, by_pytorch=True) as pytorch:
        for seed in range(first, first + count):
            what, content = generate(seed)
            model_kind = what.split(":")[0]
            outcome = runner.run_bytes(content, model_kind, f"seed {seed} ({what})")
            counts[outcome.what] += 1
            if outcome.faults(finite=False):
                report(outcome)
            if outcome.what == "answered":
                reference = pytorch.run_bytes(content, model_kind, "PyTorch")
                if reference.what != "answered" or outcome.differs(reference):
                    print(f"{outcome}\n    UNLIKE {reference}", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.most_common()))


def report(outcome: Outcome) -> None:
    print(outcome, flush=True)
    for fault in outcome.faults():
        print(f"    FAULT {fault}", flush=True)


if __name__ == "__main__":
    main()
