"""Work done ahead by one thread: the next slab is read and prepared while this one is computed with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """``make(item)`` for each item in turn, where the next one is made while the caller has the last.

    Up to three are alive at a time: the caller's last, the one handed over, and the one being made. What
    `make` raises is raised here, in turn. Close the iterator (`contextlib.closing`) where the loop over it
    may end early: closing waits for the one being made, and starts no other.

    Parameters
    ----------
    make
        Called from one thread, never twice at a time.
    items
        Taken one by one, from the caller's thread.
    """
    pool = ThreadPoolExecutor(1, "t3ssfast-ahead")
    try:
        waiting: Future[Made] | None = None
        for item in items:
            following = pool.submit(make, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
