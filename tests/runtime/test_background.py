"""`BackgroundWork`: order, waiting, and errors."""

from __future__ import annotations

import threading

import pytest

from t3ssfast.runtime.background import BackgroundWork


def test_calls_run_in_order_beside_the_caller():
    done, go_on = [], threading.Event()

    def work(number: int) -> None:
        assert go_on.wait(60)
        done.append((number, threading.current_thread().name))

    with BackgroundWork("test") as background:
        background.call(work, 0)
        assert not done
        go_on.set()
        for number in range(1, 5):
            background.call(work, number)
            # The call before has ended.
            assert [found for found, _ in done[:number]] == list(range(number))
    assert [number for number, _ in done] == list(range(5))
    assert all(name.startswith("t3ssfast-test") for _, name in done)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("t3ssfast-test")]


def fail(message: str) -> None:
    raise ValueError(message)


def test_an_error_is_raised_by_the_next_call_or_at_the_end():
    done: list[int] = []
    with BackgroundWork("test") as background:
        background.call(fail, "first")
        with pytest.raises(ValueError, match="first"):
            background.call(done.append, 1)
        background.call(done.append, 2)
    assert done == [2]
    with pytest.raises(ValueError, match="last"), BackgroundWork("test") as background:
        background.call(fail, "last")


def test_the_error_of_the_block_comes_first():
    def fail_twice() -> None:
        with BackgroundWork("test") as background:
            background.call(fail, "background")
            raise KeyError

    with pytest.raises(KeyError):
        fail_twice()
