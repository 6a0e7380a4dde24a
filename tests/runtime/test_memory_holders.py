"""What holds memory lets go of it when memory runs out."""

from __future__ import annotations

import gc

import pytest

from t3ssfast.errors import OutOfMemoryError
from t3ssfast.runtime.memory import release_when_short, retry_on_oom


class Holder:
    """Counts how often it was released."""

    def __init__(self) -> None:
        self.released = 0
        release_when_short(self)

    def release(self) -> None:
        self.released += 1


def test_holders_are_released_before_the_second_attempt() -> None:
    holder, attempts = Holder(), []

    @retry_on_oom("testing")
    def work() -> str:
        attempts.append(holder.released)
        if not holder.released:
            raise MemoryError
        return "done"

    assert work() == "done"
    assert attempts == [0, 1]


def test_holders_that_are_gone_are_not_kept() -> None:
    gone = Holder()
    released = gone.__dict__
    del gone
    gc.collect()

    @retry_on_oom("testing")
    def work() -> None:
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match="Memory ran out while testing"):
        work()
    assert released == {"released": 0}
