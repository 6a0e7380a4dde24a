"""`prefetch`: order, errors, and early closing."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from t3ssfast.runtime.prefetch import prefetch


def test_every_item_is_prepared_once_in_order():
    prepared = []

    def prepare(item: int) -> int:
        prepared.append(item)
        return item * item

    assert list(prefetch(prepare, range(7))) == [k * k for k in range(7)]
    assert prepared == list(range(7))
    assert list(prefetch(prepare, [])) == []


def test_the_next_item_is_prepared_while_the_caller_uses_the_last():
    started = threading.Event()

    def prepare(item: int) -> int:
        if item == 1:
            started.set()
        return item

    with closing(prefetch(prepare, range(3))) as items:
        assert next(items) == 0
        assert started.wait(60), "the second item was not started while the caller used the first"
        assert next(items) == 1


def test_errors_are_raised_in_order():
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("third item")
        return item

    items = prefetch(prepare, range(9))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="third item"):
        next(items)


def test_closing_early_prepares_no_more_and_leaves_no_thread():
    prepared = []

    def prepare(item: int) -> int:
        prepared.append(item)
        return item

    with closing(prefetch(prepare, range(100))) as items:
        next(items)
    assert len(prepared) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("t3ssfast-prefetch")]
