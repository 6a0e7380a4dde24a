"""What has become of each tomogram of a data set, for the report on its output folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t3ssfast.cluster.summary import FILES, DetectionSummary, Row
from t3ssfast.curation.results import CANDIDATES_FILE, Results
from t3ssfast.errors import ReadError

__all__ = ["SUMMARY_FILE", "has_results", "plain_states", "states_of"]

SUMMARY_FILE = FILES[1]
DONE = ("done", "skipped")
# Statuses beside those of a summary: results that are gone, and results that no summary tells of.
MISSING, UNLISTED = "missing", "not listed"
MAX_TEXT = 400


def has_results(folder: Path) -> bool:
    """Return whether a folder holds results, or folders with them."""
    return (folder / CANDIDATES_FILE).is_file() or any(folder.glob(f"*/{CANDIDATES_FILE}"))


def states_of(folders: Iterable[Path], results: Sequence[Results]) -> tuple[list[Row], list[str]]:
    """Compare the summaries of output folders with the results in them.

    Parameters
    ----------
    folders
        Folders as they were given to the report; those without summary.json have no states.
    results
        All results of the report.

    Returns
    -------
    The rows of the summaries, finished tomograms last, and a sentence for each summary that cannot be read.
    Where summary and folder differ, the row says how.
    """
    shown = [one.folder.resolve() for one in results]
    rows: list[Row] = []
    problems: list[str] = []
    for folder in folders:
        try:
            summary = DetectionSummary.load(folder)
        except ReadError as error:
            problems.append(str(error)[:MAX_TEXT])
            continue
        if summary is None:
            continue
        inside = {path.name for path in shown if path.parent == folder.resolve()}
        rows += [_compared(row, row.tomogram in inside) for row in summary.rows]
        unlisted = inside - {row.tomogram for row in summary.rows}
        rows += [Row(name, UNLISTED) for name in sorted(unlisted)]
    return sorted(rows, key=lambda row: row.status in DONE), problems


def _compared(row: Row, is_shown: bool) -> Row:
    """Return the row of a tomogram, with another status or error where its results contradict it."""
    if row.status in DONE and not is_shown:
        return replace(row, status=MISSING, error=f"{CANDIDATES_FILE} is not in its folder")
    if row.status not in DONE and is_shown:
        earlier = "the candidates shown are of an earlier run"
        return replace(row, error=f"{row.error}; {earlier}" if row.error else earlier)
    return row


def plain_states(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values for the page."""
    return [
        {
            "name": row.tomogram,
            "status": row.status,
            "ended": row.status in DONE,
            "candidates": row.candidates,
            "seconds": None if row.seconds is None else round(row.seconds, 1),
            "attempts": row.attempts,
            "worker": row.worker[:MAX_TEXT],
            "error": row.error[:MAX_TEXT],
        }
        for row in rows
    ]
