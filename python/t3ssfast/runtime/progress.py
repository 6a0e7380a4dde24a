"""How far a long job is, and how long each of its stages took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

__all__ = ["Stages"]

Made = TypeVar("Made")


class Stages:
    """Times named stages and shows bars for the long ones; use it as a context manager.

    Parameters
    ----------
    visible
        Show bars, if standard error is a terminal; never in a pipe or a log.

    Attributes
    ----------
    seconds
        Wall time of each stage, added up over the times it was entered, in order of first entry.
    """

    def __init__(self, visible: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not (visible and sys.stderr.isatty()),
        )

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time within the block as that of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def waiting(self, name: str, made: Generator[Made, None, None]) -> Generator[Made, None, None]:
        """The same items; the time that each takes to come is counted as that of a stage."""
        with closing(made):
            while True:
                with self(name):
                    try:
                        item = next(made)
                    except StopIteration:
                        return
                yield item

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar; the block calls what it is given with how many of `total` steps were done."""
        task = self._progress.add_task(title, total=total)

        def advance(steps: int) -> None:
            self._progress.advance(task, steps)

        yield advance
