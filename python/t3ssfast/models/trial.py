"""The first reading and running of a foreign model, in a child process with limits on memory and time.

The reader is written so that no file can make it crash, hang or fill memory. Should one do so all the same,
it takes a child process along, and not the program that searches the night's other tomograms.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from t3ssfast.errors import ModelError, T3Error
from t3ssfast.models.fitting import ModelReading

__all__ = ["try_in_child"]

# Above what the child holds when it starts, and per byte of the file.
MEMORY_BYTES, MEMORY_PER_BYTE = 1 << 30, 8
CPU_SECONDS = 20
# The limit on processor time ends a child that computes; this one is for a machine so busy that it does not
# get to compute.
WALL_SECONDS = 600.0
# The child ends when nothing was asked for so long: a detection loads its models at its start.
IDLE_SECONDS = 20.0
# The exit status of a child that ended so, which no limit and no crash gives.
IDLE_EXIT = 3
MAX_REMEMBERED = 64


class _Child:
    """A process that tries models, started at the first use and again after it ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        self.lock = threading.Lock()
        self.passed: set[tuple[str, str, ModelReading]] = set()

    def start(self) -> subprocess.Popen[bytes]:
        package = Path(__file__).resolve().parents[2]
        paths = [str(package), *(os.path.abspath(p) for p in sys.path if p)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "t3ssfast.models.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=package,
            env=environment,
            # Ctrl-C is for the parent, whose end closes the pipe and ends the child.
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any], content: bytes) -> dict[str, Any] | None:
        """Return the child's answer, or None if it died; ModelError where it got no time to answer."""
        for attempt in range(2):
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self.stop()
                self.process, self.owner = self.start(), os.getpid()
            process = self.process
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                _send(process.stdin, json.dumps(request).encode())
                _send(process.stdin, content)
            except OSError:
                # It may have just ended because it was idle.
                self.stop()
                if attempt == 0:
                    continue
                return None
            try:
                ready, _, _ = select.select([process.stdout], [], [], WALL_SECONDS)
                if not ready:
                    raise ModelError(
                        f"{request['name']} got no answer from its trial in {WALL_SECONDS:.0f} s; load it "
                        "again when the machine is less busy."
                    )
                answer = _receive(process.stdout)
            except BaseException:
                # Interrupted: the answer that is still to come would be taken for that of the next file.
                self.stop()
                raise
            if answer is not None:
                result: dict[str, Any] = json.loads(answer)
                return result
            was_idle = _has_ended_idle(process)
            self.stop()
            if not was_idle:
                return None
        return None

    def stop(self) -> None:
        """End the child, if it is one of this process."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _has_ended_idle(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child that gave no answer had ended before it read the request."""
    try:
        return process.wait(IDLE_SECONDS) == IDLE_EXIT
    except subprocess.TimeoutExpired:
        return False


_child = _Child()
atexit.register(_child.stop)


def try_in_child(content: bytes, name: str, model_kind: str, reading: ModelReading) -> None:
    """Read and run a foreign model in a child process, and pass on what it raises there.

    Where there are no limits on processes, as on Windows, nothing is tried.

    Raises
    ------
    ModelError
        As reading and probing raise it; or the child crashed, ran out of memory or out of time.
    """
    if os.name != "posix" or not sys.executable:
        return
    key = hashlib.sha256(content).hexdigest(), model_kind, reading
    with _child.lock:
        if key in _child.passed:
            return
        answer = _child.ask({"name": name, "model_kind": model_kind, **asdict(reading)}, content)
        if answer is None:
            raise ModelError(
                f"{name} is refused: the process that tried it crashed, or took over {CPU_SECONDS} s or "
                f"{MEMORY_BYTES >> 30} GiB for a small input; use another model."
            )
        if answer["error"] is not None:
            raise ModelError(answer["error"])
        if len(_child.passed) >= MAX_REMEMBERED:
            _child.passed.clear()
        _child.passed.add(key)


# ---------------------------------------------------------------------------------------------- in the child


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    length = pipe.read(8)
    if len(length) < 8:
        return None
    content = pipe.read(int.from_bytes(length, "little"))
    return content or None


def _limit(size: int) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    if pages:
        memory = MEMORY_BYTES + MEMORY_PER_BYTE * size
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for kind, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _serve() -> None:
    import torch

    from t3ssfast.models.checks import open_foreign

    torch.set_num_threads(1)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while select.select([incoming], [], [], IDLE_SECONDS)[0]:
        request = _receive(incoming)
        if request is None:
            return
        content = incoming.read(int.from_bytes(incoming.read(8), "little"))
        options = json.loads(request)
        _limit(len(content))
        error = None
        try:
            name, model_kind = options.pop("name"), options.pop("model_kind")
            open_foreign(content, name, model_kind, ModelReading(**options))
        except T3Error as failure:
            error = str(failure)
        except (MemoryError, RecursionError, RuntimeError) as failure:
            first = (str(failure).splitlines() or [""])[0][:200]
            error = f"{name} is refused: it cannot be tried ({type(failure).__name__} {first})."
        _send(outgoing, json.dumps({"error": error}).encode())
    # At once, as a request that comes while Python cleans up would get no answer.
    os._exit(IDLE_EXIT)


if __name__ == "__main__":
    _serve()
