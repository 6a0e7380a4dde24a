"""The number of threads follows the CPUs that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from t3ssfast.runtime import threads
from t3ssfast.runtime.threads import available_cpus, torch_threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 64 CPUs and no limits; returns a function that gives the number for some."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)), raising=False)

    def count(files: dict[str, str] | None = None, **environment: str) -> int:
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        places = {"cgroups": tmp_path / "cgroup", "membership": tmp_path / "membership"}
        return available_cpus(environment=environment, **places)

    return count


def test_the_affinity_counts_without_other_limits(machine):
    assert machine() == 48
    assert machine({"cgroup/cpu.max": "max 100000"}) == 48
    assert machine({"cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"}) == 48
    assert machine({"cgroup/cpu.max": "nonsense"}, SLURM_CPUS_PER_TASK="many") == 48


def test_slurm_limits_the_threads(machine):
    assert machine(SLURM_CPUS_PER_TASK="8") == 8
    assert machine(SLURM_CPUS_PER_TASK="96") == 48


def test_quotas_of_either_version_limit_the_threads(machine, tmp_path):
    assert machine({"cgroup/cpu.max": "250000 100000"}) == 3
    (tmp_path / "cgroup/cpu.max").unlink()
    quota = {"cgroup/cpu/cpu.cfs_quota_us": "50000", "cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert machine(quota, SLURM_CPUS_PER_TASK="8") == 1


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("0::/slurm/job_7/task_0\n", "cgroup/slurm/job_7/cpu.max", "400000 100000"),
        ("0::/slurm/job_7/task_0\n", "cgroup/slurm/job_7/task_0/cpu.max", "400000 100000"),
        ("4:cpu,cpuacct:/job\n1:memory:/x\n", "cgroup/cpu/job/cpu.cfs_quota_us", "400000"),
    ],
)
def test_quotas_of_the_groups_above_count(machine, membership, file, text):
    period = {file.replace("quota", "period"): "100000"} if "quota" in file else {}
    assert machine({"membership": membership, **period, file: text}) == 4


def test_threads_are_limited_inside_the_block_only(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for cpus, expected in ((2, 2), (16, 4)):
            monkeypatch.setattr(threads, "available_cpus", lambda cpus=cpus: cpus)
            with torch_threads(None):
                assert torch.get_num_threads() == expected
            with torch_threads(3):
                assert torch.get_num_threads() == 3
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_this_machine_has_a_cpu():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    assert available_cpus(cgroups=Path("/nowhere"), membership=Path("/nowhere")) >= 1
