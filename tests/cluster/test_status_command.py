"""`t3ssfast status` and `submit` where there is nothing, and for what other processes have left."""

from __future__ import annotations

import json

import pytest
from test_coordinator import make_task
from test_pool import save_result

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.cluster import slurm
from t3ssfast.cluster.data_set import DataSet
from t3ssfast.cluster.ledger import Ledger


def status(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["status", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_state_of_a_folder_that_others_work_on(tmp_path):
    DataSet.record(tmp_path, [make_task(name) for name in ("a", "b", "c")])
    ledger = Ledger(tmp_path)
    save_result(tmp_path, "a", 3, 0)
    ledger.end(ledger.begin("a", "key", "here"), status="done", candidates=3, seconds=2.0)
    ledger.begin("b", "key", "here")
    code, printed, _ = status(tmp_path)
    assert code == 0
    assert printed.splitlines()[-1] == "3 tomograms: 1 done, 1 running, 1 waiting"
    assert "a.mrc" not in printed
    assert "a.mrc" in status(tmp_path, "--all")[1]
    assert not (tmp_path / "candidates.star").exists()
    for name in ("b", "c"):
        ledger.end(ledger.begin(name, "key", "here"), status="failed", error="c.mrc: why; do this.")
    code, printed, _ = status(tmp_path, "--json")
    assert code == 1
    assert json.loads(printed)["counts"] == {"done": 1, "failed": 2}
    assert (tmp_path / "candidates.star").exists()
    assert (tmp_path / "summary.csv").exists()


def test_other_folders_are_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        code, _, errors = status(path)
        assert code == 1
        assert "not the output folder of many tomograms" in errors


@pytest.mark.parametrize(
    ("command", "missing", "message"),
    [
        (["submit"], "submitit", "Slurm needs submitit"),
        (["detect", "--cluster", "slurm"], "sbatch", "The command sbatch was not found"),
    ],
)
def test_nothing_is_written_without_slurm(tmp_path, monkeypatch, command, missing, message):
    monkeypatch.setattr(slurm, "find_spec", lambda name: None if name == missing else object())
    monkeypatch.setattr(slurm, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    (tmp_path / "a.mrc").touch()
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [*command, str(tmp_path / "a.mrc"), "-o", str(out)])
    assert result.exit_code == 1
    assert message in result.stderr
    assert not out.exists()
