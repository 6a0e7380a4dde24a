"""The number of CPUs that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["available_cpus"]


def available_cpus(
    *,
    environment: Mapping[str, str] | None = None,
    cgroups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int:
    """Return the number of CPUs that this process may use.

    It is the smallest of the CPUs that it is bound to, the quota of its control group (versions 1 and 2,
    rounded up), and what Slurm gave the task (SLURM_CPUS_PER_TASK).

    Parameters
    ----------
    environment, cgroups, membership
        Environment variables, the mounted control groups, and the file with those of this process.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    environment = os.environ if environment is None else environment
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal() and int(given) > 0:
        counts.append(int(given))
    counts += _quotas(cgroups, membership)
    return min(counts)


def _quotas(cgroups: Path, membership: Path) -> list[int]:
    """Return the quota in CPUs of every control group that this process is in, also through another one."""
    groups: dict[str, str] = {}
    try:
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
    except (OSError, ValueError):
        pass
    counts = []
    # Inside a container, the group's own path may not exist: the root of the mount is then the group.
    for root, path in ((cgroups, groups.get("", "/")), (cgroups / "cpu", groups.get("cpu", "/"))):
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group != root and root not in group.parents:
                break
            counts += _quota(group)
    counts += _quota(cgroups / "cpu,cpuacct")
    return counts


def _quota(group: Path) -> list[int]:
    """Return the quota of one control group in CPUs; empty where it has none."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return []
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return []
    return [max(1, math.ceil(share))] if share > 0 else []
