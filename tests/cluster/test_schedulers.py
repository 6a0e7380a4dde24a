"""What schedulers are asked for: shares of a machine, time limits, options of sbatch, scripts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_coordinator import make_task

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.cli.clusters import parse_shard, run_on_cluster, slurm_options
from t3ssfast.cluster import resources, slurm, slurm_state
from t3ssfast.cluster.estimate import chunk_tasks, estimate_seconds, limit_minutes
from t3ssfast.cluster.resources import available_memory, divide
from t3ssfast.cluster.slurm import SlurmOptions
from t3ssfast.cluster.slurm_state import JobArray, active_tomograms, array_limit, ending, queued_states
from t3ssfast.cluster.tomogram_detection import TaskOptions
from t3ssfast.errors import ConfigError

GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 12 cores, 40 GiB of memory and three CUDA devices."""
    monkeypatch.setattr(resources, "available_cpus", lambda: 12)
    monkeypatch.setattr(resources, "available_memory", lambda: 40 * GIB)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("machine")
def test_cores_memory_and_devices_are_divided(monkeypatch):
    options = TaskOptions(config=t3.DetectConfig())
    shared, environments = divide(options, 4)
    assert [one["OMP_NUM_THREADS"] for one in environments] == ["3"] * 4
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == ["0", "1", "2", "0"]
    assert shared == options, "as long as the memory holds all, results are those of one after another"
    shared, _ = divide(options, 20)
    assert shared.config.memory_budget_bytes == GIB
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,GPU-c")
    _, environments = divide(replace(options, config=t3.DetectConfig(threads=5)), 2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == ["GPU-a", "GPU-b"]
    assert environments[0]["OMP_NUM_THREADS"] == "5"
    for device in ("cpu", "cuda:1"):
        _, environments = divide(replace(options, device=device), 2)
        assert "CUDA_VISIBLE_DEVICES" not in environments[0]


def test_memory_is_that_of_the_machine_or_of_the_control_group(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n")
    assert available_memory(meminfo=meminfo, cgroup=tmp_path) == 4 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo=meminfo, cgroup=tmp_path) == 4 * GIB
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    assert available_memory(meminfo=meminfo, cgroup=tmp_path) == GIB


def test_time_grows_with_the_searched_volume(tmp_path):
    def seconds(shape: tuple[int, int, int], voxel: float, cores: int = 1) -> float:
        t3.write(tmp_path / "a.mrc", np.zeros(shape, np.int8), voxel)
        return estimate_seconds(replace(make_task("a"), path=tmp_path / "a.mrc"), cores)

    small = seconds((20, 200, 200), 13.6)
    assert 0.5 < small < 5
    assert seconds((40, 200, 200), 13.6) == pytest.approx(2 * small, rel=0.01)
    assert seconds((20, 200, 200), 27.2) == pytest.approx(8 * small, rel=0.1)
    assert seconds((20, 200, 200), 13.6, cores=4) < small / 3
    assert estimate_seconds(replace(make_task("none"), path=tmp_path / "none.mrc"), 1) == 0
    assert limit_minutes(0) == 10
    assert limit_minutes(3600) > 4 * 60


def test_short_tomograms_share_a_job(monkeypatch):
    times = {"a": 10.0, "b": 250.0, "c": 100.0, "d": 900.0, "e": 1.0}
    monkeypatch.setattr("t3ssfast.cluster.estimate.estimate_seconds", lambda task, cores: times[task.name])
    tasks = [make_task(name) for name in times]
    chunks = [[task.name for task in members] for _, members in chunk_tasks(tasks, 1)]
    assert chunks == [["a", "b"], ["c"], ["d"], ["e"]]
    chunks = [[task.name for task in members] for _, members in chunk_tasks(tasks, 1, per_job=3)]
    assert chunks == [["a", "b", "c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 2), ("1:30:00", 90), ("1-12", 36 * 60), ("2-00:30", 2910), ("1-0:0:1", 1441)],
)
def test_times_of_sbatch_in_minutes(text, minutes):
    parameters = slurm.sbatch_parameters(SlurmOptions(sbatch={"time": text}), make_task("a"))
    assert parameters["time"] == minutes


def test_options_of_sbatch_replace_the_defaults():
    task = replace(make_task("a"), memory_bytes=2 * GIB)
    default = slurm.sbatch_parameters(SlurmOptions(), task)
    assert (default["cpus_per_task"], default["mem"]) == (4, "4096M")
    assert "gpus_per_node" not in default
    assert slurm.sbatch_parameters(SlurmOptions(), replace(task, device="cuda"))["gpus_per_node"] == 1
    texts = ["partition=gpu", "--cpus-per-task=8", "gres=gpu:a100:1", "mem-per-cpu=2G", "exclusive"]
    given = slurm_options(texts)
    parameters = slurm.sbatch_parameters(given, replace(task, device="cuda"))
    assert parameters["cpus_per_task"] == 8
    assert "mem" not in parameters
    assert "gpus_per_node" not in parameters
    assert parameters["additional_parameters"] == {
        "partition": "gpu",
        "gres": "gpu:a100:1",
        "mem-per-cpu": "2G",
        "exclusive": True,
    }
    for wrong in ("time=soon", "cpus-per-task=many"):
        with pytest.raises(ConfigError, match=wrong):
            slurm.sbatch_parameters(slurm_options([wrong]), task)
    with pytest.raises(ConfigError, match="no name before"):
        slurm_options(["=3"])


def test_states_come_from_squeue_and_scontrol(monkeypatch, tmp_path):
    answers = {
        "squeue": "7_0 RUNNING\n7_1 PENDING\n7_2 COMPLETING\n8 RUNNING\n9_0 RUNNING\n",
        "scontrol": "JobId=12 ArrayJobId=7 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125\n",
    }
    monkeypatch.setattr(slurm_state, "run_slurm", lambda command, *rest: answers[command])
    arrays = [JobArray("7", {"7_0": ["a"], "7_1": ["b", "c"], "7_3": ["d"]}), JobArray("8", {"8": ["e"]})]
    for array in arrays:
        array.record(tmp_path)
    assert JobArray.recorded(tmp_path) == arrays
    states = queued_states(arrays)
    assert states == {"7_0": "running", "7_1": "waiting", "7_2": "running", "8": "running"}
    active = active_tomograms(arrays, states)
    assert active == {"a": "running", "b": "waiting", "c": "waiting", "e": "running"}
    assert ending("7_3") == ("its job 7_3 ended as OUT_OF_MEMORY (exit code 0:125)", True)
    for state in ("CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"):
        answers["scontrol"] = f"JobId=12 JobState={state} ExitCode=0:0\n"
        assert not ending("7_3")[1]
    answers["scontrol"] = "SlurmctldDebug = info\nMaxArraySize            = 4001\n"
    assert array_limit() == 4000


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", ""])
def test_wrong_shards_are_refused(text):
    with pytest.raises(ConfigError, match=r"give I/N"):
        parse_shard(text)
    assert parse_shard("3/4") == (3, 4)


@pytest.mark.parametrize("text", ["local", "local:0", "local:-1", "slurm:x", "dask", "dask:", "pbs", ""])
def test_wrong_clusters_are_refused(text):
    with pytest.raises(ConfigError, match="not understood; give local:N"):
        run_on_cluster([], text, sbatch=None, retries=0, shard=None, quiet=True, tilt_series_pixel_size=None)


@pytest.mark.parametrize(
    ("variables", "argument", "shard"),
    [
        ({"PBS_ARRAY_INDEX": "3"}, None, "3"),
        ({"PBS_ARRAYID": "2"}, None, "2"),
        ({"SGE_TASK_ID": "1"}, None, "1"),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "2"}, None, "2"),
        ({"LSB_JOBINDEX": "0", "SLURM_ARRAY_TASK_ID": "3"}, None, "3"),
        ({}, "0", "1"),
        ({}, None, None),
    ],
)
def test_the_script_for_other_schedulers_finds_its_shard(tmp_path, monkeypatch, variables, argument, shard):
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "c", "d"):
        t3.write(tmp_path / f"{name}.mrc", np.zeros((2, 2, 2), np.int8), 13.6)
    arguments = ["submit", "a b.mrc", "c.mrc", "d.mrc", "-o", "out", "--threshold", "0.7", "--no-png"]
    result = CliRunner().invoke(app, [*arguments, "--template", "job.sh", "--shards", "9"])
    assert result.exit_code == 0, result.output
    assert "for 3 jobs" in result.stdout
    script = Path("job.sh")
    assert os.access(script, os.X_OK)
    # Prints the words of the command instead of running it.
    script.write_text(script.read_text().replace("\nexec ", "\nprintf '%s\\n' "))
    command = ["bash", str(script), *([] if argument is None else [argument])]
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"]} | variables, capture_output=True, text=True
    )
    if shard is None:
        assert done.returncode == 2
        assert "no job of an array" in done.stderr
        return
    words = done.stdout.splitlines()
    assert words[words.index("detect") :] == [
        *("detect", "--cluster=local:1", f"--shard={shard}/3"),
        *("--out=out", "--threshold=0.7", "--no-png", "--", "a b.mrc", "c.mrc", "d.mrc"),
    ]
