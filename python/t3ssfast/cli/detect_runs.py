"""The searches of `t3ssfast detect` in this process: one after another, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from t3ssfast.errors import BusyError
from t3ssfast.runtime.counted import counted

if TYPE_CHECKING:
    from t3ssfast.cluster.summary import DetectionSummary
    from t3ssfast.cluster.task import Outcome
    from t3ssfast.cluster.tomogram_detection import TomogramDetection
    from t3ssfast.detection import Detection

__all__ = ["plain_result", "run_all", "say", "summarise_outcomes"]

# Rows of the printed table; candidates.csv has all of them.
TABLE_ROWS = 20
# Pause when other processes are working on every tomogram that is left.
BUSY_SECONDS = 2.0


def run_all(detections: Sequence[TomogramDetection], *, is_list: bool, quiet: bool) -> list[Outcome]:
    """Search every tomogram, and return what became of each in the order given.

    Any error is reported and costs only its tomogram; that of a single tomogram is raised. A tomogram that
    another process is working on is tried again after the others. If that process is killed, its tomogram is
    searched here. Processes that share a list continue at different places of it.
    """
    from t3ssfast.cluster.task import Outcome
    from t3ssfast.cluster.tomogram_detection import error_sentence

    outcomes: dict[int, Outcome] = {}
    remaining = deque(enumerate(detections))
    reported: set[int] = set()
    while remaining:
        busy: deque[tuple[int, TomogramDetection]] = deque()
        before = len(outcomes)
        while remaining:
            number, detection = remaining.popleft()
            name = _shown(detection.path)
            label = f"{number + 1} of {len(detections)}: {name}"
            if is_list and not quiet and sys.stdout.isatty():
                say(label)
            began = time.perf_counter()
            try:
                result, is_new = detection(progress=not quiet)
            except BusyError as error:
                busy.append((number, detection))
                if number not in reported:
                    reported.add(number)
                    say(f"postponed: {error}", err=True)
                # The other process continues with the next ones.
                remaining.rotate(random.randrange(len(remaining) + 1))
                continue
            except Exception as error:
                if not is_list:
                    raise
                text = error_sentence(detection.path, error)
                outcomes[number] = Outcome(detection.name, "failed", time.perf_counter() - began, error=text)
                say(f"error: {'' if name in text else f'{name}: '}{text}", err=True)
                if not quiet and not sys.stdout.isatty():
                    say(f"{label}: failed")
                continue
            outcomes[number] = Outcome(
                detection.name,
                "done" if is_new else "skipped",
                time.perf_counter() - began,
                len(result.candidates),
                notes=tuple(result.provenance["notes"]),
            )
            if not quiet:
                _print(outcomes[number], result, detection.folder, label if is_list else "")
        if busy and len(outcomes) == before:
            time.sleep(BUSY_SECONDS)
        remaining = busy
    return [outcomes[number] for number in sorted(outcomes)]


def summarise_outcomes(
    detections: Sequence[TomogramDetection], outcomes: Sequence[Outcome], pixel_size: float | None
) -> DetectionSummary:
    """Write the summary of a list and its pooled candidates, and return the summary."""
    from t3ssfast.cluster.data_set import DataSet
    from t3ssfast.cluster.detect_many import summarise

    data_set = DataSet.record(detections[0].folder.parent, detections)
    by_name = {outcome.name: outcome for outcome in outcomes}
    summary = data_set.summary(by_name, list(by_name))
    summarise(summary, pixel_size)
    return summary


def plain_result(detection: TomogramDetection) -> dict[str, Any]:
    """Read the result of a tomogram as plain values."""
    from t3ssfast.cluster.pool import pool_candidates

    folder = detection.folder
    (candidates,) = pool_candidates(folder.parent, [folder.name])
    table = candidates.to_dataframe().to_dict(orient="records")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    result = {"tomogram": str(detection.path), "folder": str(folder), "candidates": table}
    return result | {key: provenance[key] for key in ("counts", "seconds", "notes")}


def _shown(path: Path) -> str:
    from t3ssfast.io import display_path

    return display_path(path)


def say(text: str, *, err: bool = False) -> None:
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


def _print(outcome: Outcome, result: Detection, folder: Path, label: str) -> None:
    """Print a result: for a list in a pipe one line, which begins with `label`; elsewhere the candidates."""
    from t3ssfast.cluster.display import outcome_line

    if label and not sys.stdout.isatty():
        say(outcome_line(outcome, folder, label))
        return
    _print_candidates(result)
    say(f"{'wrote' if outcome.status == 'done' else 'finished before:'} {_shown(folder)}")


def _print_candidates(detection: Detection) -> None:
    """Print the best candidates, the notes, and the time taken."""
    from rich.console import Console
    from rich.table import Table

    from t3ssfast.candidates import T3SS

    candidates, provenance = detection.candidates, detection.provenance
    console = Console()
    if len(candidates):
        table = Table(title=counted(len(candidates), "candidate"))
        for column in ("", "score", "z", "y", "x", "tilt", "psi"):
            table.add_column(column, justify="right")
        # One kind for all says nothing, unless it is not the usual one.
        with_kinds = bool((candidates.kind != T3SS).any())
        if with_kinds:
            table.add_column("kind")
        poses = candidates.to_dataframe()[["z", "y", "x", "tilt", "psi"]]
        for number, pose in enumerate(poses[:TABLE_ROWS].to_numpy()):
            values = [f"{value:.1f}" for value in pose] + [str(candidates.kind[number])] * with_kinds
            table.add_row(f"{number + 1}", f"{candidates.score[number]:.3f}", *values)
        if len(candidates) > TABLE_ROWS:
            table.add_row("...")
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
