"""`t3ssfast bench`: equal results first, then times, in a table or as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from command_line import CliRunner
from t3ssfast.cli import app, benchmarks
from t3ssfast.cli.benchmarks import BENCHMARKS, Timing, check_equal, run_benchmarks
from t3ssfast.errors import T3Error

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["unfold", "moments", "segmenter", "detection"])
def test_results_equal_those_of_pytorch_and_are_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "ROUNDS", 1)
    for timing in BENCHMARKS[name](CPU):
        assert min(timing.seconds, timing.torch_seconds) > 0
        assert timing.to_dict()["times_faster"] == timing.torch_seconds / timing.seconds


def test_different_results_are_an_error() -> None:
    check_equal("work", np.ones(3), torch.ones(3), 0.0)
    with pytest.raises(T3Error, match=r"work: .* differ by 0\.5, more than 0\.1"):
        check_equal("work", np.ones(3), np.array([1, 1, 1.5]), 0.1)
    with pytest.raises(T3Error, match="differ by nan"):
        check_equal("work", np.ones(1), np.array([np.nan]), 0.1)
    with pytest.raises(T3Error, match=r"shape \(3,\) and \(2,\)"):
        check_equal("work", np.ones(3), np.ones(2), 0.1)


def test_the_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(device, threads):
        calls.append((device, threads))
        yield Timing("counting", 0.25, 1.0, "by hand")

    monkeypatch.setattr(benchmarks, "run_benchmarks", run)
    table = CliRunner().invoke(app, ["bench", "--device", "cpu", "--threads", "1"], env={"COLUMNS": "120"})
    assert table.exit_code == 0
    for text in ("counting", "250.0", "1000.0", "4.0", "by hand"):
        assert text in table.stdout
    assert "4.0 times as fast" in table.stderr
    report = CliRunner().invoke(app, ["bench", "--device", "cpu", "--json"])
    assert report.stderr == ""
    found = json.loads(report.stdout)
    assert found["timings"] == [Timing("counting", 0.25, 1.0, "by hand").to_dict()]
    assert found["device"] == "cpu"
    assert calls == [(CPU, 1), (CPU, None)]


def test_the_number_of_threads_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen = []
    for name in BENCHMARKS:
        monkeypatch.setitem(BENCHMARKS, name, lambda device: seen.append(torch.get_num_threads()) or ())
    assert list(run_benchmarks("cpu", before + 1)) == []
    assert seen == [before + 1] * len(BENCHMARKS)
    assert torch.get_num_threads() == before
