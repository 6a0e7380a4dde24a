"""Division of a machine among the workers that share it: cores, memory and CUDA devices."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from t3ssfast.runtime.cpus import available_cpus

if TYPE_CHECKING:
    from t3ssfast.cluster.tomogram_detection import TaskOptions

__all__ = ["available_memory", "divide", "thread_variables"]

# Of the available memory; the rest is for the imports of the workers and for the files that they read.
MEMORY_FRACTION = 0.5
MIN_BUDGET = 64 << 20
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_MAX_THREADS")
MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
DEVICES = "CUDA_VISIBLE_DEVICES"


def divide(options: TaskOptions, workers: int) -> tuple[TaskOptions, list[dict[str, str]]]:
    """Divide this machine among workers; return the options of all, and the environment of each.

    Each gets an equal part of the cores, unless a number of threads was given, which then holds for each.
    Each has the memory budget that was given, or less where the available memory does not hold all of them.
    CUDA devices go round; a device that was named is used by all.
    """
    config = options.config
    threads = config.threads or max(1, available_cpus() // workers)
    fitting = max(MIN_BUDGET, int(available_memory() * MEMORY_FRACTION / workers))
    budget = min(config.memory_budget_bytes, fitting)
    # The threads are set by the environment alone: provenance names the options that were given.
    options = replace(options, config=replace(config, memory_budget_bytes=budget))
    devices = _devices() if options.device in ("auto", "cuda") else []
    environments = []
    for number in range(workers):
        environments.append(thread_variables(threads))
        if devices:
            environments[-1][DEVICES] = devices[number % len(devices)]
    return options, environments


def thread_variables(threads: int) -> dict[str, str]:
    """Return the variables that limit the threads of the libraries of a worker."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def available_memory(*, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this process may use: of the machine, and of its control group."""
    amounts = []
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        amounts.append(int(lines["MemAvailable"].split()[0]) << 10)
    except (OSError, ValueError, KeyError):
        if hasattr(os, "sysconf"):
            amounts.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in MEMORY_LIMITS:
        try:
            amounts.append(int((cgroup / name).read_text(encoding="ascii")))
        except (OSError, ValueError):
            # No such control group, or "max".
            continue
    return min(amounts, default=1 << 62)


def _devices() -> list[str]:
    """Return the CUDA devices of this process, as `CUDA_VISIBLE_DEVICES` names them."""
    # Heavy, and only needed by the process that divides.
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(DEVICES, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]
