"""The ledger: every attempt at a tomogram, in files of the output folder that survive whatever ends a run.

An attempt is a file of its own, made by an atomic create and replaced when the attempt ends, so that
processes on several machines never write the same one. An attempt without an end was lost with the process
that watched over it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from t3ssfast.errors import OutputError
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.runtime.process_identity import is_running, this_process

__all__ = ["LOG_FOLDER", "MAX_KILLS", "RUN_FOLDER", "Attempt", "Ledger", "write_json"]

# State of a data set, and the log of each tomogram, in its output folder.
RUN_FOLDER = ".t3ssfast-run"
LOG_FOLDER = "t3ssfast-logs"
# A tomogram that killed its worker this often is set aside.
MAX_KILLS = 3
ATTEMPT_FILE = re.compile(r"(.+)\.(\d{4})\.json")


@dataclass(frozen=True)
class Attempt:
    """One attempt at a tomogram.

    `status` is "running" until it ends, then that of its `Outcome`; "killed" with its worker counts toward
    `MAX_KILLS`, "lost" with the process that watched over it does not. `process` is that process, `job` the
    job of Slurm that it belongs to.
    """

    name: str
    number: int
    key: str
    worker: str = ""
    status: str = "running"
    error: str = ""
    candidates: int | None = None
    seconds: float = 0.0
    started: float = 0.0
    ended: float | None = None
    job: str = ""
    process: dict[str, Any] = field(default_factory=dict)

    @property
    def is_lost(self) -> bool:
        """Whether it never ended although the process that watched over it has."""
        return self.status == "running" and is_running(self.process) is False


class Ledger:
    """The attempts at the tomograms of one output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / RUN_FOLDER

    def log_of(self, name: str) -> Path:
        """Return the log file of a tomogram; its folder is made if missing."""
        return results_folder(self.out / LOG_FOLDER) / f"{name}.log"

    def begin(self, name: str, key: str, worker: str) -> Attempt:
        """Record that an attempt begins, under the first number that no other attempt has."""
        results_folder(self.folder)
        earlier = self.of(name)
        attempt = Attempt(
            name,
            earlier[-1].number + 1 if earlier else 1,
            key,
            worker,
            started=time.time(),
            job=slurm_job(),
            process=this_process(),
        )
        while True:
            try:
                descriptor = os.open(self._path(attempt), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                attempt = replace(attempt, number=attempt.number + 1)
                continue
            except OSError as error:
                raise OutputError(
                    f"{display_path(self.out)} cannot be written to ({error.strerror or error}); give "
                    "another folder."
                ) from error
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(attempt), file)
            return attempt

    def end(self, attempt: Attempt, **result: Any) -> Attempt:
        """Record how an attempt ended: fields of `Attempt`."""
        ended = replace(attempt, ended=time.time(), **result)
        write_json(self._path(ended), asdict(ended))
        return ended

    def forget(self, attempt: Attempt) -> None:
        """Remove an attempt at which there was nothing to do."""
        with suppress(OSError):
            self._path(attempt).unlink()

    def of(self, name: str) -> list[Attempt]:
        """Return the attempts at a tomogram, first to last."""
        found: list[Attempt] = []
        number = missing = 0
        # A number may be missing, of an attempt that was forgotten.
        while missing < 2:
            number += 1
            attempt = self._read(name, number)
            missing = missing + 1 if attempt is None else 0
            if attempt is not None:
                found.append(attempt)
        return found

    def all(self) -> dict[str, list[Attempt]]:
        """Return the attempts at every tomogram, first to last."""
        found: dict[str, list[Attempt]] = {}
        for name, number in sorted(self._files()):
            attempt = self._read(name, number)
            if attempt is not None:
                found.setdefault(name, []).append(attempt)
        return found

    def _files(self) -> Iterator[tuple[str, int]]:
        with suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if match := ATTEMPT_FILE.fullmatch(path.name):
                    yield match[1], int(match[2])

    def _path(self, attempt: Attempt) -> Path:
        return self.folder / f"{attempt.name}.{attempt.number:04d}.json"

    def _read(self, name: str, number: int) -> Attempt | None:
        """Read an attempt; None where there is none. One that was cut off as it began is a lost one."""
        try:
            text = (self.folder / f"{name}.{number:04d}.json").read_text(encoding="utf-8")
        except OSError:
            return None
        try:
            content = json.loads(text)
            known = {one.name for one in fields(Attempt)}
            return Attempt(**{key: value for key, value in content.items() if key in known})
        except (ValueError, TypeError, AttributeError):
            return Attempt(name, number, key="", status="lost")


def write_json(path: Path, content: Any) -> None:
    """Write plain values atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def slurm_job() -> str:
    """Return the job of Slurm that this process belongs to, as "123_4" in an array; empty outside of one."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID", "")
