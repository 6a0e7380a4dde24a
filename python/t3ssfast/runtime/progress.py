"""Progress bars and timings of the stages of a long job."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

__all__ = ["ProgressListener", "Stages"]

Item = TypeVar("Item")
# Called with the title of a bar, and its steps done and in total.
ProgressListener = Callable[[str, int, int], None]


class Stages:
    """Context manager that times named stages, and shows progress bars if standard error is a terminal.

    A function in place of `visible` is called with the progress instead of showing bars.
    """

    def __init__(self, visible: bool | ProgressListener) -> None:
        self._listener = visible if callable(visible) else None
        self.seconds: dict[str, float] = {}  # wall time of each stage, in the order of first entry
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=callable(visible) or not (visible and sys.stderr.isatty()),
        )

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # Older releases of rich end bars that are disabled with an empty line.
        if not self._progress.disable:
            self._progress.stop()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent inside the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def waiting(self, name: str, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
        """Yield the items, and add the time spent waiting for them to a stage."""
        end = object()
        with closing(items):
            while True:
                with self(name):
                    item = next(items, end)
                if item is end:
                    return
                yield cast(Item, item)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar of `total` steps; the block gets a function to advance it by some steps."""
        advance = partial(self._progress.advance, self._progress.add_task(title, total=total))
        if self._listener is None:
            yield advance
            return
        listener, done = self._listener, 0

        def tell(steps: int) -> None:
            nonlocal done
            done += steps
            listener(title, done, total)

        yield tell
