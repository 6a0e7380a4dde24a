"""The identity of a process, and whether a process of a known identity still runs.

A process number alone is not enough: numbers are given again, machines restart, containers of one machine
have numbers of their own, and machines of a cluster may share a host name.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["is_running", "this_process"]

PROC = Path("/proc")
# Fields of /proc/PID/stat after the name of the program: its state, and its start in clock ticks after boot.
STATE, START = 0, 19
ENDED = {"Z", "X"}


def this_process() -> dict[str, Any]:
    """Return host, number and start of this process, and the boot and the container that they belong to.

    `machine` is None where the system tells no boot id; nobody can then say whether this process still runs.
    """
    status = _status(os.getpid())
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "start": None if status is None else status[START],
    }


def is_running(process: dict[str, Any]) -> bool | None:
    """Whether a process described by `this_process` still runs; None where that cannot be told from here."""
    machine, pid = _machine(), process.get("pid")
    if machine is None or process.get("machine") != machine or not isinstance(pid, int):
        return None
    status = _status(pid)
    return status is not None and status[STATE] not in ENDED and status[START] == process.get("start")


@cache
def _machine() -> str | None:
    """Boot id and namespace of process numbers: within both, a number means one process at a time."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _status(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the program's name, which may contain anything."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
