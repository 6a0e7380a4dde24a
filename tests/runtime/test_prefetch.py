"""Work done ahead: order, errors, and an end before its time."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from t3ssfast.runtime.prefetch import prefetch


def test_everything_is_made_once_and_in_order():
    made = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    assert list(prefetch(make, range(7))) == [k * k for k in range(7)]
    assert made == list(range(7))
    assert list(prefetch(make, [])) == []


def test_the_next_is_made_while_the_caller_has_the_last():
    begun = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            begun.set()
        return item

    with closing(prefetch(make, range(3))) as items:
        assert next(items) == 0
        assert begun.wait(60), "the second was not begun while the first was in hand"
        assert next(items) == 1


def test_errors_come_in_turn():
    def make(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    items = prefetch(make, range(9))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(items)


def test_closing_early_starts_no_other_and_leaves_no_thread():
    made = []

    def make(item: int) -> int:
        made.append(item)
        return item

    with closing(prefetch(make, range(100))) as items:
        next(items)
    assert len(made) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("t3ssfast-ahead")]
