"""Attempts and the state of a data set on disk, as other processes leave and read them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_coordinator import make_task

from t3ssfast.cluster.data_set import DataSet
from t3ssfast.cluster.ledger import MAX_KILLS, RUN_FOLDER, Ledger
from t3ssfast.errors import OutputError, ReadError
from t3ssfast.runtime.process_identity import this_process

NAMES = ("TS_01", "TS_02.b", "-[x] 3")


def finish(out: Path, name: str, candidates: int = 2) -> None:
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "provenance.json").write_text(json.dumps({"counts": {"candidates": candidates}}))


def data_set(out: Path) -> DataSet:
    return DataSet.record(out, [make_task(name) for name in NAMES])


def statuses(out: Path, **arguments: object) -> list[str]:
    return [row.status for row in DataSet.open(out).rows(**arguments)]  # type: ignore[arg-type]


def test_attempts_are_numbered_and_read_back(tmp_path):
    ledger = Ledger(tmp_path)
    for name in NAMES:
        first = ledger.begin(name, "key", "here")
        second = ledger.begin(name, "key", "there")
        assert (first.number, second.number) == (1, 2)
        ended = ledger.end(first, status="done", candidates=3)
        assert ledger.of(name) == [ended, second]
    assert {name: len(attempts) for name, attempts in ledger.all().items()} == dict.fromkeys(NAMES, 2)
    # What was forgotten in the middle does not hide what follows.
    third = ledger.begin("TS_01", "key", "here")
    ledger.forget(ledger.of("TS_01")[1])
    assert [one.number for one in ledger.of("TS_01")] == [1, 3]
    assert ledger.begin("TS_01", "key", "here").number == third.number + 1


def test_attempts_that_begin_at_once_have_different_numbers(tmp_path):
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(Ledger(tmp_path).begin("a", "key", "here").number))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 17))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 1}', "null"])
def test_a_damaged_attempt_is_a_lost_one(tmp_path, content):
    ledger = Ledger(tmp_path)
    ledger.begin("a", "key", "here")
    (tmp_path / RUN_FOLDER / "a.0001.json").write_text(content)
    assert [one.status for one in ledger.of("a")] == ["lost"]
    assert ledger.begin("a", "key", "here").number == 2


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / RUN_FOLDER).write_text("a file")
    with pytest.raises(OutputError, match="choose another"):
        Ledger(tmp_path).begin("a", "key", "here")


def test_rows_tell_what_became_of_each_tomogram(tmp_path):
    data_set(tmp_path)
    ledger = Ledger(tmp_path)
    assert statuses(tmp_path) == ["waiting"] * 3
    assert statuses(tmp_path, active={"TS_01": "waiting", "TS_02.b": "running"})[1] == "running"
    attempts = [ledger.begin(name, "key", "here") for name in NAMES]
    assert statuses(tmp_path) == ["running"] * 3
    finish(tmp_path, "TS_01")
    ledger.end(attempts[0], status="done", candidates=2, seconds=1.5)
    ledger.end(attempts[1], status="failed", error="why")
    # The process that watched over it is gone: this one's number was another's.
    gone = replace(attempts[2], process=this_process() | {"start": "0"})
    ledger.end(gone, status="running")
    summary = DataSet.open(tmp_path).summary()
    assert list(summary.table["status"]) == ["done", "failed", "waiting"]
    assert list(summary.table["candidates"][:1]) == [2]
    assert list(summary.failed["error"]) == ["why"]
    assert list(summary.unfinished["tomogram"]) == ["-[x] 3"]
    # A later run without a ledger has finished it.
    finish(tmp_path, "TS_02.b")
    assert statuses(tmp_path)[1] == "done"


def test_kills_of_other_options_do_not_count(tmp_path):
    data_set(tmp_path)
    ledger = Ledger(tmp_path)
    for key in ("old", "old", *["new"] * (MAX_KILLS - 1)):
        ledger.end(ledger.begin("TS_01", key, "here"), status="killed", error="SIGSEGV")
    assert statuses(tmp_path)[0] == "failed"
    ledger.end(ledger.begin("TS_01", "new", "here"), status="killed", error="SIGSEGV")
    assert statuses(tmp_path)[0] == "poisoned"


def test_runs_into_one_folder_add_up(tmp_path):
    data_set(tmp_path)
    DataSet.record(tmp_path, [make_task("later")])
    assert list(DataSet.open(tmp_path).paths) == [*NAMES, "later"]
    with pytest.raises(ReadError, match="not the output folder of many tomograms"):
        DataSet.open(tmp_path / "none")


def test_summary_files_hold_every_row_and_no_formula(tmp_path):
    DataSet.record(tmp_path, [make_task("=1+1"), make_task("b")])
    Ledger(tmp_path).end(Ledger(tmp_path).begin("b", "key", "here"), status="failed", error='=cmd|"x"')
    summary = DataSet.open(tmp_path).summary()
    summary.save()
    table = pd.read_csv(tmp_path / "summary.csv")
    assert list(table["tomogram"]) == ["'=1+1", "b"]
    assert table["error"][1] == '\'=cmd|"x"'
    assert list(table.columns) == [
        *("tomogram", "status", "candidates", "seconds", "worker", "attempts", "error", "path")
    ]
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["counts"] == {"waiting": 1, "failed": 1}
    assert written["tomograms"][0]["tomogram"] == "=1+1"
