"""The table of candidates that `t3ssfast detect` prints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from t3ssfast.candidates import Candidates
from t3ssfast.cli.detect_runs import run_all


class Finished:
    """A search of which the result is known."""

    name, path, folder = "TS_01", Path("TS_01.mrc"), Path("TS_01")

    def __init__(self, kinds: list[str]) -> None:
        n = len(kinds)
        found = Candidates(np.ones((n, 3)), np.ones(n), np.ones((n, 3)), 10.0, kind=kinds)
        counts = {"windows_judged": 1, "windows_searched": 2}
        provenance = {"notes": [], "counts": counts, "seconds": {"read": 1.0}}
        self.result = SimpleNamespace(candidates=found, provenance=provenance)

    def __call__(self, *, progress: bool) -> tuple[Any, bool]:
        return self.result, True


@pytest.mark.parametrize(
    ("kinds", "named"), [(["t3ss", "t3ss"], False), (["t3ss", "flagellar_motor"], True), ([], False)]
)
def test_kinds_are_named_where_there_are_others_than_t3ss(
    kinds: list[str], named: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run_all([Finished(kinds)], is_list=False, quiet=False)  # type: ignore[list-item]
    printed = capsys.readouterr().out
    assert ("kind" in printed) == ("flagellar_motor" in printed) == named
    assert "wrote TS_01" in printed
