"""Work in a background thread, in order, while the caller goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

__all__ = ["BackgroundWork"]


class BackgroundWork:
    """Context manager that calls functions one after another in a thread.

    One call at a time is unfinished: its successor waits for it. Leaving the block waits for the last one. An
    exception is raised by the next `call`, `wait`, or at the end of the block, unless it ends with another.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, f"t3ssfast-{name}")
        self._unfinished: Future[Any] | None = None

    def __enter__(self) -> BackgroundWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Wait for the call before, and start this one."""
        self.wait()
        self._unfinished = self._pool.submit(function, *arguments)

    def wait(self) -> None:
        """Wait for the last call, and raise its exception."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()
