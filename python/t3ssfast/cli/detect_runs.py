"""The searches of `t3ssfast detect`: one after another, whatever happens to one of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from t3ssfast.errors import BusyError, T3Error

if TYPE_CHECKING:
    from t3ssfast.detection import Detection

__all__ = ["DetectionRun", "print_summary", "run_all"]

# Rows of the printed table; candidates.csv has all of them.
TABLE_ROWS = 20
# Pause when other processes are working on every tomogram that is left.
BUSY_SECONDS = 2.0


@dataclass(frozen=True)
class DetectionRun:
    """The search of one tomogram, with the pictures of the result."""

    # run_to_folder with the options that all tomograms share.
    search: Callable[..., tuple[Detection, bool]]
    path: Path
    mask: Path | None
    search_mask: Path | None
    folder: Path
    voxel_size: float | None
    png: bool

    def __call__(self) -> tuple[Detection, bool]:
        """Return the detection, and whether it is new rather than read from an earlier run."""
        from t3ssfast.detection.result import PICTURES
        from t3ssfast.runtime.figures import pictures_of

        draw = self.draw if self.png else None
        detection, is_new = self.search(
            self.folder, self.path, membrane=self.mask, search_mask=self.search_mask, draw=draw
        )
        if draw is not None and not is_new and not all((self.folder / name).exists() for name in PICTURES):
            with pictures_of(_shown(self.folder)):
                draw(detection)
        return detection, is_new

    def draw(self, detection: Detection) -> None:
        from t3ssfast.detection.result import PICTURES
        from t3ssfast.io import read, read_mask
        from t3ssfast.plotting import draw_candidates, draw_gallery

        tomogram = read(self.path, voxel_size_angstrom=self.voxel_size)
        membrane = detection.membrane
        if self.mask is not None:
            membrane = read_mask(self.mask, tomogram)
        sign = detection.provenance["contrast"]["sign"]
        overview, gallery = (self.folder / name for name in PICTURES)
        draw_candidates(overview, tomogram, detection.candidates, membrane=membrane, contrast_sign=sign)
        draw_gallery(gallery, tomogram, detection.candidates, contrast_sign=sign)


@dataclass(frozen=True)
class Outcome:
    """What became of a tomogram: "done", "skipped" (finished before) or "failed"."""

    run: DetectionRun
    status: str
    seconds: float
    candidates: int | None = None
    # The result as plain values; the membrane of a hundred tomograms would not fit into memory.
    result: dict[str, Any] | None = field(default=None, repr=False)
    error: str = ""


def run_all(runs: Sequence[DetectionRun], *, is_list: bool, quiet: bool) -> list[Outcome]:
    """Search every tomogram, and return what became of each in the order given.

    Any error is reported and costs only its tomogram; that of a single tomogram is raised. A tomogram that
    another process is working on is tried again after the others. If that process is killed, its tomogram is
    searched here.
    """
    outcomes: dict[int, Outcome] = {}
    remaining = dict(enumerate(runs))
    reported: set[int] = set()
    while remaining:
        busy: dict[int, DetectionRun] = {}
        for number, run in remaining.items():
            label = f"{number + 1} of {len(runs)}: {_shown(run.path)}" if is_list else _shown(run.path)
            if is_list and not quiet and sys.stdout.isatty():
                _say(label)
            began = time.perf_counter()
            try:
                detection, is_new = run()
            except BusyError as error:
                busy[number] = run
                if number not in reported:
                    reported.add(number)
                    _say(f"postponed: {error}", err=True)
                continue
            except Exception as error:
                from t3ssfast.io import tomogram_name

                if not is_list:
                    raise
                text = _sentence(error).removeprefix(f"{tomogram_name(run.path)}: ")
                outcomes[number] = Outcome(run, "failed", time.perf_counter() - began, error=text)
                name = _shown(run.path)
                _say(f"error: {'' if name in text else f'{name}: '}{text}", err=True)
                if not quiet and not sys.stdout.isatty():
                    _say(f"{label}: failed")
                continue
            seconds = time.perf_counter() - began
            status = "done" if is_new else "skipped"
            result = _result(run, detection)
            outcomes[number] = Outcome(run, status, seconds, len(detection.candidates), result)
            if not quiet:
                _print(outcomes[number], detection, label, is_list)
        if remaining and len(busy) == len(remaining):
            time.sleep(BUSY_SECONDS)
        remaining = busy
    return [outcomes[number] for number in sorted(outcomes)]


def _result(run: DetectionRun, detection: Detection) -> dict[str, Any]:
    """Return a result as plain values."""
    table = detection.candidates.to_dataframe().to_dict(orient="records")
    result = {"tomogram": str(run.path), "folder": str(run.folder), "candidates": table}
    return result | {key: detection.provenance[key] for key in ("counts", "seconds", "notes")}


def _shown(path: Path) -> str:
    from t3ssfast.io import display_path

    return display_path(path)


def _say(text: str, *, err: bool = False) -> None:
    """Print a line at once; one that cannot be printed costs no tomogram of a list."""
    try:
        typer.echo(text, err=err)
    except BrokenPipeError:
        # The reader is gone. Whatever else is printed, also when Python ends, is thrown away.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), (sys.stderr if err else sys.stdout).fileno())
    except OSError:
        # The disk of the log may be full for a while.
        pass


def _sentence(error: Exception) -> str:
    """Return an error on one line."""
    if isinstance(error, T3Error):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs, or give a smaller --memory-budget."
    reason = " ".join(str(error).split())
    return f"the search failed ({type(error).__name__}: {reason}); run it alone, and report this if it fails."


def _print(outcome: Outcome, detection: Detection, label: str, is_list: bool) -> None:
    """Print a result: one line for each tomogram of a list in a pipe, the best candidates elsewhere."""
    wrote = "wrote" if outcome.status == "done" else "finished before:"
    where = f"{wrote} {_shown(outcome.run.folder)}"
    if not is_list or sys.stdout.isatty():
        _print_candidates(detection)
        _say(where)
        return
    count = len(detection.candidates)
    notes = "".join(f"; note: {note}" for note in detection.provenance["notes"])
    candidates = f"{count} candidate{'' if count == 1 else 's'}"
    _say(f"{label}: {candidates} in {outcome.seconds:.1f} s, {where}{notes}")


def print_summary(outcomes: Sequence[Outcome]) -> None:
    """Print one line for each tomogram: status, number of candidates, seconds, and the error."""
    rows = [("tomogram", "status", "candidates", "seconds", "")]
    for outcome in outcomes:
        count = "" if outcome.candidates is None else str(outcome.candidates)
        seconds = f"{outcome.seconds:.1f}"
        rows.append((_shown(outcome.run.path), outcome.status, count, seconds, outcome.error))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, status, count, seconds, error in rows:
        columns = (f"{name:<{widths[0]}}", f"{status:<{widths[1]}}", f"{count:>{widths[2]}}")
        _say("  ".join((*columns, f"{seconds:>{widths[3]}}", error)).rstrip())


def _print_candidates(detection: Detection) -> None:
    """Print the best candidates, the notes, and the time taken."""
    from rich.console import Console
    from rich.table import Table

    candidates, provenance = detection.candidates, detection.provenance
    console = Console()
    if len(candidates):
        table = Table(title=f"{len(candidates)} candidate{'' if len(candidates) == 1 else 's'}")
        for column in ("", "score", "z", "y", "x", "tilt", "psi"):
            table.add_column(column, justify="right")
        poses = candidates.to_dataframe()[["z", "y", "x", "tilt", "psi"]]
        for number, pose in enumerate(poses[:TABLE_ROWS].to_numpy()):
            values = [f"{value:.1f}" for value in pose]
            table.add_row(f"{number + 1}", f"{candidates.score[number]:.3f}", *values)
        if len(candidates) > TABLE_ROWS:
            table.add_row("...", *[""] * 6)
        console.print(table)
    else:
        console.print("no candidates")
    for note in provenance["notes"]:
        console.print(f"note: {note}")
    counts, seconds = provenance["counts"], sum(provenance["seconds"].values())
    console.print(
        f"{counts['windows_judged']:,} of {counts['windows_searched']:,} windows of the search region "
        f"classified in {seconds:.1f} s"
    )
