"""Isolated processes on this machine: whatever ends one of them costs one attempt at one tomogram."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import t3ssfast as t3
from result_files import results_in
from t3ssfast.cluster.ledger import Attempt, Ledger

pytestmark = pytest.mark.usefixtures("no_process_left")


def by_name(summary: t3.DetectionSummary) -> dict[str, pd.Series]:
    return {row["tomogram"]: row for _, row in summary.table.iterrows()}


@pytest.mark.usefixtures("faults")
def test_faults_cost_one_attempt_each(data_set, options, serial, tmp_path, monkeypatch):
    paths = data_set("TS_01", "segfault", "once", "missing", "TS_02")
    out = tmp_path / "out"
    begin = Ledger.begin

    def begin_after_two_kills(self: Ledger, name: str, key: str, worker: str) -> Attempt:
        # As an earlier run with the same options would have left them.
        if name == "segfault" and not self.of(name):
            for _ in range(2):
                self.end(begin(self, name, key, "earlier"), status="killed", error="its worker ended.")
        return begin(self, name, key, worker)

    monkeypatch.setattr(Ledger, "begin", begin_after_two_kills)
    summary = t3.detect_many(paths, out, workers=2, retries=1, **options)

    rows = by_name(summary)
    statuses = {name: row["status"] for name, row in rows.items()}
    assert statuses == {
        "TS_01": "done",
        "segfault": "poisoned",
        "once": "done",
        "missing": "failed",
        "TS_02": "done",
    }
    assert rows["TS_01"]["candidates"] == 3
    assert rows["once"]["attempts"] == 2
    assert rows["segfault"]["attempts"] == 3
    assert "SIGSEGV (a segmentation fault)" in rows["segfault"]["error"]
    assert "no file of this name exists" in rows["missing"]["error"]
    assert set(summary.failed["tomogram"]) == {"segfault", "missing"}
    assert [attempt.status for attempt in Ledger(out).of("once")] == ["killed", "done"]
    assert "Segmentation fault" in (out / "t3ssfast-logs" / "segfault.log").read_text()
    for path in (paths[0], paths[2], paths[4]):
        assert results_in(out / path.stem) == serial(path)

    written = json.loads((out / "summary.json").read_text())
    assert written["counts"] == {"done": 3, "poisoned": 1, "failed": 1}
    assert list(pd.read_csv(out / "summary.csv")["status"]) == list(statuses.values())
    pooled = t3.load_all_candidates(out / "candidates.star")
    assert {found.tomogram_name: len(found) for found in pooled if len(found)} == {"TS_01": 3}

    # Only what failed is run again, and what was set aside is not.
    again = by_name(t3.detect_many(paths, out, workers=1, retries=0, **options))
    assert {name: row["status"] for name, row in again.items()} == {
        name: "skipped" if status == "done" else status for name, status in statuses.items()
    }
    assert "set aside" in again["segfault"]["error"]
    assert len(Ledger(out).of("segfault")) == 3
    assert len(Ledger(out).of("TS_01")) == 1


def test_one_sentence_for_what_no_worker_could_do(data_set, options, tmp_path):
    paths = data_set("TS_01", "TS_02")
    out = tmp_path / "out"
    cases = [
        ({"executor": object()}, t3.errors.ConfigError, "neither a Client of dask"),
        ({"workers": 0}, t3.errors.ConfigError, "workers 0"),
        ({"membranes": paths[:1]}, t3.errors.InputError, "1 masks for 2 tomograms"),
        ({"segmenter": np.zeros(3)}, t3.errors.ConfigError, "segmenter: ndarray was given"),
        ({"segmenter": tmp_path / "none.pt"}, t3.errors.ModelError, "no model file"),
        ({"device": "cuda:77"}, t3.errors.DeviceError, "cuda:77"),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=message):
            t3.detect_many(paths, out, **(options | wrong))
    with pytest.raises(t3.errors.InputError, match="no tomogram"):
        t3.detect_many([], out, **options)
    with pytest.raises(t3.errors.InputError, match="given 2 times"):
        t3.detect_many([paths[0], paths[0]], out, **options)
    assert not out.exists()
