"""`t3ssfast bench`: the same answers first, then times, in a table or as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from t3ssfast.cli import app, benchmarks
from t3ssfast.cli.benchmarks import Timing
from t3ssfast.errors import T3Error

CPU = torch.device("cpu")


@pytest.mark.parametrize("part", ["_unfold", "_statistics", "_segmenter", "_detection"])
def test_each_part_agrees_with_pytorch_and_is_timed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "ROUNDS", 1)
    for timing in getattr(benchmarks, part)(CPU):
        assert min(timing.seconds, timing.torch_seconds) > 0
        assert timing.to_dict()["times_faster"] == timing.torch_seconds / timing.seconds


def test_answers_that_differ_are_not_timed() -> None:
    benchmarks._agree("work", np.ones(3), torch.ones(3), 0.0)
    with pytest.raises(T3Error, match=r"work: .* differ by 0\.5, more than 0\.1"):
        benchmarks._agree("work", np.ones(3), np.array([1, 1, 1.5]), 0.1)
    with pytest.raises(T3Error, match="differ by nan"):
        benchmarks._agree("work", np.ones(1), np.array([np.nan]), 0.1)
    with pytest.raises(T3Error, match=r"shape \(3,\) and PyTorch \(2,\)"):
        benchmarks._agree("work", np.ones(3), np.ones(2), 0.1)


def test_the_command_shows_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(device, threads):
        asked.append((device, threads))
        yield Timing("counting", 0.25, 1.0, "by hand")

    monkeypatch.setattr(benchmarks, "run_benchmarks", run)
    shown = CliRunner().invoke(app, ["bench", "--device", "cpu", "--threads", "1"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    for text in ("counting", "250.0", "1000.0", "4.0", "by hand"):
        assert text in shown.stdout
    assert "4.0 times as fast" in shown.stderr
    report = CliRunner().invoke(app, ["bench", "--device", "cpu", "--json"])
    assert report.stderr == ""
    found = json.loads(report.stdout)
    assert found["timings"] == [Timing("counting", 0.25, 1.0, "by hand").to_dict()]
    assert found["device"] == "cpu"
    assert asked == [(CPU, 1), (CPU, None)]


def test_the_number_of_threads_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen = []
    for part in ("_unfold", "_statistics", "_median", "_scores", "_segmenter", "_detection"):
        monkeypatch.setattr(benchmarks, part, lambda where: seen.append(torch.get_num_threads()) or ())
    assert list(benchmarks.run_benchmarks("cpu", before + 1)) == []
    assert seen == [before + 1] * 6
    assert torch.get_num_threads() == before
