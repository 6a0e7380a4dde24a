"""Division of a machine among the workers that share it: cores, memory and CUDA devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from t3ssfast.cluster.task import TaskOptions
from t3ssfast.runtime.threads import available_cpus

__all__ = ["Share", "available_memory", "divide", "thread_variables"]

# Of the available memory; the rest is for the imports of the workers and for the files that they read.
MEMORY_FRACTION = 0.5
MIN_BUDGET = 64 << 20
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_MAX_THREADS")
MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What one worker gets: environment variables, and options that follow from its cores and memory."""

    environment: Mapping[str, str]
    options: TaskOptions


def divide(options: TaskOptions, workers: int) -> list[Share]:
    """Divide this machine among workers.

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
    shares = []
    for number in range(workers):
        environment = thread_variables(threads)
        if devices:
            environment[DEVICES] = devices[number % len(devices)]
        shares.append(Share(environment, options))
    return shares


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
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(DEVICES, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]
