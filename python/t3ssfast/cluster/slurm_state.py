"""The job arrays of a data set: which tomograms they have, and what Slurm says about them.

Only `squeue` and `scontrol` are asked, which need no accounting database.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from t3ssfast.cluster.ledger import RUN_FOLDER, write_json
from t3ssfast.errors import T3Error
from t3ssfast.io import results_folder

__all__ = ["JobArray", "SlurmError", "active_tomograms", "array_limit", "cancel", "ending", "queued_states"]

ARRAY_FILE = "slurm-{}.json"
SECONDS_TO_ANSWER = 60
DEFAULT_ARRAY_LIMIT = 1000
WAITING_STATES = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "SPECIAL_EXIT"}
# Endings that are the work of people, of the scheduler or of a machine, and not of the tomogram.
OUTSIDE_STATES = {"CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"}


class SlurmError(T3Error):
    """Slurm refused a job, or its commands are not here."""


@dataclass(frozen=True)
class JobArray:
    """A job array, with the names of the tomograms of each element ("123_4", or "123" of a single job)."""

    job: str
    elements: Mapping[str, Sequence[str]]

    def record(self, out: Path) -> None:
        """Write it down in the output folder."""
        content = {"job": self.job, "elements": {key: list(names) for key, names in self.elements.items()}}
        write_json(results_folder(out / RUN_FOLDER) / ARRAY_FILE.format(self.job), content)

    @classmethod
    def recorded(cls, out: Path) -> list[JobArray]:
        """Read the arrays that were submitted for an output folder."""
        found = []
        for path in sorted((out / RUN_FOLDER).glob(ARRAY_FILE.format("*"))):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                content = json.loads(path.read_text(encoding="utf-8"))
                found.append(cls(str(content["job"]), dict(content["elements"])))
        return found


def run_slurm(*command: str) -> str:
    """Run a command of Slurm and return what it prints; SlurmError if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
    except FileNotFoundError as error:
        raise SlurmError(
            f"The command {command[0]} was not found, so Slurm cannot be used here; run this where it can, "
            "or give --cluster local:N."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{command[0]} did not answer within {SECONDS_TO_ANSWER} s; try again when Slurm works."
        ) from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise SlurmError(f"{command[0]} failed ({reason.rstrip('.')}); check the options and Slurm's state.")
    return done.stdout


def queued_states(arrays: Sequence[JobArray]) -> dict[str, str]:
    """Return "running" or "waiting" for the elements of arrays that Slurm still has."""
    jobs = {array.job for array in arrays}
    if not jobs:
        return {}
    states = {}
    for line in run_slurm("squeue", "-h", "-r", "-u", getuser(), "-o", "%i %T").splitlines():
        element, _, state = line.strip().partition(" ")
        if element.split("_")[0] in jobs:
            states[element] = "waiting" if state in WAITING_STATES else "running"
    return states


def active_tomograms(arrays: Sequence[JobArray], states: Mapping[str, str]) -> dict[str, str]:
    """Return the state of each tomogram whose element Slurm still has (see `queued_states`)."""
    return {
        name: states[element]
        for array in arrays
        for element, names in array.elements.items()
        if element in states
        for name in names
    }


def ending(element: str) -> tuple[str, bool]:
    """Return how an element ended, in words, and whether that may be the tomogram's fault."""
    try:
        text = run_slurm("scontrol", "-o", "show", "job", element)
    except SlurmError:
        # It is forgotten after a few minutes.
        return f"its job {element} is gone", False
    fields = dict(re.findall(r"(\w+)=(\S*)", text))
    state = fields.get("JobState", "UNKNOWN")
    return (
        f"its job {element} ended as {state} (exit code {fields.get('ExitCode', 'unknown')})",
        state not in OUTSIDE_STATES | {"UNKNOWN"},
    )


def array_limit() -> int:
    """Return the largest number of elements of an array."""
    with suppress(SlurmError):
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", run_slurm("scontrol", "show", "config"))
        if match:
            return max(1, int(match[1]) - 1)
    return DEFAULT_ARRAY_LIMIT


def cancel(arrays: Sequence[JobArray]) -> None:
    """Cancel what Slurm still has of arrays; does not wait for it, and works if this process ends."""
    if arrays:
        with suppress(OSError):
            subprocess.Popen(
                ["scancel", *(array.job for array in arrays)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
