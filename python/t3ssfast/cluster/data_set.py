"""A data set on disk: which tomograms it has, and what has become of each, whoever worked on it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3ssfast.cluster.ledger import MAX_KILLS, RUN_FOLDER, Attempt, Ledger, write_json
from t3ssfast.cluster.summary import DetectionSummary, Row
from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.errors import ReadError
from t3ssfast.io import display_path, results_folder

if TYPE_CHECKING:
    from t3ssfast.cluster.tomogram_detection import TomogramDetection

__all__ = ["DataSet"]

MANIFEST = "data-set.json"


@dataclass(frozen=True)
class DataSet:
    """The tomograms of an output folder by name, with the path of each."""

    out: Path
    paths: Mapping[str, str]

    @classmethod
    def record(cls, out: Path, tasks: Sequence[Task | TomogramDetection]) -> DataSet:
        """Write down the tomograms of a run, beside those of earlier runs into the same folder."""
        known = cls._read(out) or {}
        paths = known | {task.name: str(task.path) for task in tasks}
        if paths != known:
            write_json(results_folder(out / RUN_FOLDER) / MANIFEST, {"tomograms": paths})
        return cls(out, paths)

    @classmethod
    def open(cls, out: Path) -> DataSet:
        """Read which tomograms an output folder has; ReadError where no run has written it down."""
        paths = cls._read(out)
        if paths is None:
            raise ReadError(
                f"{display_path(out)}: it is not the output folder of many tomograms; give the folder that "
                "was given to detect or submit as -o."
            )
        return cls(out, paths)

    @staticmethod
    def _read(out: Path) -> dict[str, str] | None:
        try:
            content = json.loads((out / RUN_FOLDER / MANIFEST).read_text(encoding="utf-8"))
            return {str(name): str(path) for name, path in content["tomograms"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def summary(
        self,
        outcomes: Mapping[str, Outcome] | None = None,
        names: Sequence[str] | None = None,
        active: Mapping[str, str] | None = None,
    ) -> DetectionSummary:
        """Return what has become of each tomogram; arguments as for `rows`."""
        return DetectionSummary(self.out, tuple(self.rows(outcomes, names, active)))

    def rows(
        self,
        outcomes: Mapping[str, Outcome] | None = None,
        names: Sequence[str] | None = None,
        active: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """Return a row for each tomogram.

        Parameters
        ----------
        outcomes
            Of this run, where there are any; others are read from the folder.
        names
            Tomograms to report; all by default.
        active
            "running" or "waiting" for tomograms that a scheduler has.
        """
        outcomes = outcomes or {}
        ledger = Ledger(self.out)
        attempts = ledger.all() if names is None else {name: ledger.of(name) for name in names}
        rows = []
        for name in self.paths if names is None else names:
            if name in outcomes:
                rows.append(_row_of_outcome(name, outcomes[name], self.paths[name]))
            else:
                rows.append(self._row_on_disk(name, attempts.get(name, []), (active or {}).get(name)))
        return rows

    def _row_on_disk(self, name: str, attempts: Sequence[Attempt], active: str | None) -> Row:
        path, count = self.paths[name], len(attempts)
        last = attempts[-1] if attempts else None
        finished = self._finished(name)
        if finished is not None and (last is None or last.status == "done" or last.started < finished[0]):
            _, candidates = finished
            if last is None or last.status != "done":
                return Row(name, "done", candidates, attempts=count, path=path)
            return Row(name, "done", candidates, last.seconds, last.worker, count, path=path)
        if active is not None and (last is None or last.status != "running"):
            return Row(name, active, attempts=count, path=path)
        if last is None or last.status == "lost" or last.is_lost:
            return Row(name, "waiting", attempts=count, path=path)
        if last.status == "running":
            since = time.time() - last.started
            return Row(name, "running", None, round(since, 1), last.worker, count, path=path)
        kills = sum(one.status == "killed" and one.key == last.key for one in attempts)
        status = "poisoned" if kills >= MAX_KILLS else "failed"
        return Row(name, status, None, last.seconds, last.worker, count, last.error, path)

    def _finished(self, name: str) -> tuple[float, int | None] | None:
        """Return when the results of a tomogram were completed, and the number of candidates."""
        path = self.out / name / "provenance.json"
        with suppress(OSError):
            completed = path.stat().st_mtime
            with suppress(OSError, ValueError, KeyError, TypeError):
                content: Any = json.loads(path.read_text(encoding="utf-8"))
                return completed, int(content["counts"]["candidates"])
            return completed, None
        return None


def _row_of_outcome(name: str, outcome: Outcome, path: str) -> Row:
    return Row(
        name,
        outcome.status,
        outcome.candidates,
        round(outcome.seconds, 3),
        outcome.worker,
        outcome.attempts,
        outcome.error,
        path,
    )
