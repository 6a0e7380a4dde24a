"""Preparation of the next item in a background thread while the caller works on the current one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(prepare: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield ``prepare(item)`` for each item in order, preparing the next one in a thread meanwhile.

    At most three results exist at a time; `items` are iterated in the caller's thread. If the loop may end
    early, close the iterator (`contextlib.closing`): this waits for the current item and starts no other.
    """
    pool = ThreadPoolExecutor(1, "t3ssfast-prefetch")
    try:
        current: Future[Result] | None = None
        for item in items:
            following = pool.submit(prepare, item)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
