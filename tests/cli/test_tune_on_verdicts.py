"""`train tune` takes curation files as they are."""

from __future__ import annotations

from dataclasses import replace

import t3ssfast as t3
from command_line import CliRunner
from result_folders import make_results
from t3ssfast.cli import app


def test_tune_gets_every_verdict(tmp_path, monkeypatch):
    received = {}

    def fine_tune(tomograms, picks, out, **options):
        received.update(names=[t.name for t in tomograms], labels=[p.label.tolist() for p in picks])

    monkeypatch.setattr("t3ssfast.training.fine_tune.fine_tune_verifier", fine_tune)
    monkeypatch.setattr("t3ssfast.cli.train._print_metrics", lambda *arguments: None)
    judged = []
    for name in ("TS_01", "TS_02"):
        candidates = make_results(tmp_path / name, 4, name=name)
        (tmp_path / name / "tomogram.mrc").rename(tmp_path / f"{name}.mrc")
        judged.append(replace(candidates, label=["accepted", "rejected", "unsure", ""]))
    t3.save_curation(judged, tmp_path / "v.json")
    paths = [str(tmp_path / f"{name}.mrc") for name in ("TS_02", "TS_01")]
    arguments = ["train", "tune", *paths, "-p", str(tmp_path / "v.json"), "--contrast", "dark"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert received["names"] == ["TS_02", "TS_01"]
    assert received["labels"] == [["accepted", "rejected", "unsure", ""]] * 2
