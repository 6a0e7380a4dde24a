"""The summary of a data set: a table with a row for each tomogram, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3ssfast.cluster.ledger import write_json
from t3ssfast.io import atomic_path, results_folder
from t3ssfast.io.particles.text import escape_formula

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DetectionSummary", "Row"]

FILES = ("summary.csv", "summary.json")
FAILED = ("failed", "poisoned")
ENDED = ("done", "skipped", *FAILED)


@dataclass(frozen=True)
class Row:
    """What has become of a tomogram: "done", "skipped", "failed", "poisoned", "running" or "waiting"."""

    tomogram: str
    status: str
    candidates: int | None = None
    seconds: float | None = None
    worker: str = ""
    attempts: int = 0
    error: str = ""
    path: str = ""


@dataclass(frozen=True)
class DetectionSummary:
    """What has become of the tomograms of a data set.

    Parameters
    ----------
    out
        Output folder.
    rows
        One for each tomogram.
    """

    out: Path
    rows: tuple[Row, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per tomogram: tomogram, status, candidates, seconds, worker, attempts, error, path.

        The status is "done", "skipped" (finished before), "failed" or "poisoned" (set aside, because it ended
        its worker too often); "running" or "waiting" while a scheduler or another process has it.
        """
        import pandas as pd

        table = pd.DataFrame([asdict(row) for row in self.rows], columns=[one.name for one in fields(Row)])
        return table.astype({"candidates": "Int64", "seconds": "Float64"})

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that failed or were set aside; a second call does these again."""
        table = self.table
        return table[table["status"].isin(FAILED)].reset_index(drop=True)

    @property
    def unfinished(self) -> pd.DataFrame:
        """The rows of tomograms that are running or waiting."""
        table = self.table
        return table[~table["status"].isin(ENDED)].reset_index(drop=True)

    def counts(self) -> dict[str, int]:
        """Return the number of tomograms of each status, in the order of their first row."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.status] = counts.get(row.status, 0) + 1
        return counts

    def save(self) -> list[Path]:
        """Write summary.csv and summary.json into the output folder, atomically."""
        paths = [results_folder(self.out) / name for name in FILES]
        table = self.table
        for column in ("tomogram", "worker", "error", "path"):
            table[column] = [escape_formula(text) for text in table[column]]
        with atomic_path(paths[0]) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8")
        write_json(paths[1], self.to_dict())
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Return counts and rows as plain values."""
        return {"counts": self.counts(), "tomograms": [asdict(row) for row in self.rows]}

    def lines(self) -> list[str]:
        """Return the table as text: one line per tomogram, with the error."""
        return table_lines(self.rows)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return rows as lines of text in columns."""
    cells = [("tomogram", "status", "candidates", "seconds", "")]
    for row in rows:
        count = "" if row.candidates is None else str(row.candidates)
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        cells.append((row.path, row.status, count, seconds, row.error))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return [
        "  ".join(
            (
                f"{name:<{widths[0]}}",
                f"{status:<{widths[1]}}",
                f"{count:>{widths[2]}}",
                f"{seconds:>{widths[3]}}",
                error,
            )
        ).rstrip()
        for name, status, count, seconds, error in cells
    ]
