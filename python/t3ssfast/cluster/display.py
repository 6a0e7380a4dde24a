"""What is shown while tasks run: a live table on a terminal, and a line for each tomogram elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from t3ssfast.cluster.task import Outcome, Task
from t3ssfast.io import display_path
from t3ssfast.runtime.counted import counted

__all__ = ["Display", "outcome_line"]

STATES = ("done", "skipped", "running", "failed", "waiting")
REFRESHES_PER_SECOND = 2


class Display:
    """Counts what happens to tasks, and shows it.

    Parameters
    ----------
    tasks
        All tasks of the run.
    table
        Whether to show a live table if standard error is a terminal.
    say
        Called with each line about a tomogram, and with whether it is about a problem.
    """

    def __init__(
        self, tasks: Sequence[Task], *, table: bool, say: Callable[[str, bool], None] | None = None
    ) -> None:
        self._numbers = {task.name: number for number, task in enumerate(tasks, 1)}
        self._say = say or (lambda text, problem: None)
        self._began = time.monotonic()
        self._ended: Counter[str] = Counter()
        self._running: set[str] = set()
        self._postponed: set[str] = set()
        self._live: Live | None = None
        if table and sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(
                get_renderable=self._table,
                console=console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, task: Task) -> None:
        """Take note of a task that begins."""
        self._running.add(task.name)

    def postponed(self, task: Task, outcome: Outcome) -> None:
        """Take note of a task that another process works on; said once."""
        self._running.discard(task.name)
        if task.name not in self._postponed:
            self._postponed.add(task.name)
            self._say(f"postponed: {outcome.error}", True)

    def repeated(self, task: Task, outcome: Outcome) -> None:
        """Take note of an attempt that failed and is repeated."""
        self._running.discard(task.name)
        self._say(
            f"{display_path(task.path)}: attempt {outcome.attempts} failed, another follows: {outcome.error}",
            True,
        )

    def finished(self, task: Task, outcome: Outcome) -> None:
        """Take note of the outcome of a task."""
        self._running.discard(task.name)
        self._ended["failed" if outcome.status == "poisoned" else outcome.status] += 1
        problem = outcome.status in ("failed", "poisoned")
        if problem:
            self._say(f"error: {_named(task, outcome.error)}", True)
        label = f"{self._numbers[task.name]} of {len(self._numbers)}: {display_path(task.path)}"
        self._say(outcome_line(outcome, task.folder, label), False)

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each of `STATES`."""
        counts = {state: self._ended[state] for state in STATES}
        counts["running"] = len(self._running)
        counts["waiting"] = len(self._numbers) - sum(self._ended.values()) - len(self._running)
        return counts

    def remaining_seconds(self) -> float | None:
        """Estimate the time until all tasks have ended; None before the first one has."""
        searched = self._ended["done"] + self._ended["failed"]
        if not searched:
            return None
        left = len(self._numbers) - sum(self._ended.values())
        return (time.monotonic() - self._began) / searched * left

    def _table(self) -> Table:
        elapsed = _clock(time.monotonic() - self._began)
        table = Table(title=f"{counted(len(self._numbers), 'tomogram')} in {elapsed}")
        row = []
        for state, count in self.counts().items():
            table.add_column(state, justify="right")
            row.append(str(count))
        table.add_column("time left, about", justify="right")
        left = self.remaining_seconds()
        table.add_row(*row, "" if left is None else _clock(left))
        return table


def outcome_line(outcome: Outcome, folder: Path, label: str) -> str:
    """Return the line about a tomogram in a pipe."""
    if outcome.candidates is None:
        return f"{label}: failed"
    count = outcome.candidates
    wrote = "wrote" if outcome.status == "done" else "finished before:"
    notes = "".join(f"; note: {note}" for note in outcome.notes)
    candidates = counted(count, "candidate")
    where = f"{wrote} {display_path(folder)}"
    return f"{label}: {candidates} in {outcome.seconds:.1f} s, {where}{notes}"


def _named(task: Task, error: str) -> str:
    name = display_path(task.path)
    return error if name in error else f"{name}: {error}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
