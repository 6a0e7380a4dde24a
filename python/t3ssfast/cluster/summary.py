"""The summary of a data set: a table with a row for each tomogram, and its files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3ssfast.cluster.ledger import write_json
from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.io.particles.text import escape_formula

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DetectionSummary", "Row"]

FILES = ("summary.csv", "summary.json")
FAILED = ("failed", "poisoned")
ENDED = ("done", "skipped", *FAILED)
STATUSES = (*ENDED, "running", "waiting")
# Larger files are no summary; a row has some hundred bytes.
MAX_BYTES = 64 << 20


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

    @classmethod
    def load(cls, out: Path) -> DetectionSummary | None:
        """Read summary.json of an output folder, as it was last written; None where there is none.

        Raises
        ------
        ReadError
            If the file is damaged.
        """
        path = out / FILES[1]
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(out, tuple(_row(entry) for entry in content["tomograms"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ReadError(
                f"{display_path(path)}: it is no summary of a data set ({type(error).__name__}: {error}); "
                "write it again with t3ssfast status."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return counts and rows as plain values."""
        return {"counts": self.counts(), "tomograms": [asdict(row) for row in self.rows]}

    def lines(self) -> list[str]:
        """Return the table as text: one line per tomogram, with the error."""
        return table_lines(self.rows)


def _row(entry: dict[str, Any]) -> Row:
    """Return the row of an entry in a file; ValueError, KeyError or TypeError where it is none."""
    name, status = entry["tomogram"], entry["status"]
    if not isinstance(name, str) or status not in STATUSES:
        raise ValueError(f"tomogram {name!r} with status {status!r}")
    numbers = {key: entry.get(key) for key in ("candidates", "seconds", "attempts")}
    for key, number in numbers.items():
        if number is not None and not (isinstance(number, (int, float)) and math.isfinite(number)):
            raise ValueError(f"{key} of {name!r} is {number!r}")
    return Row(
        tomogram=name,
        status=status,
        candidates=None if numbers["candidates"] is None else int(numbers["candidates"]),
        seconds=None if numbers["seconds"] is None else float(numbers["seconds"]),
        attempts=int(numbers["attempts"] or 0),
        **{key: str(entry.get(key, "")) for key in ("worker", "error", "path")},
    )


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
