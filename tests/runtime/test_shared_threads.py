"""Work in several threads, each with its share of PyTorch's."""

from __future__ import annotations

import threading

import pytest
import torch

from t3ssfast.runtime.threads import map_in_threads, torch_threads


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_results_come_in_order_and_threads_are_shared(workers: int) -> None:
    share: set[int] = set()
    names: set[str] = set()

    def square(value: int) -> int:
        share.add(torch.get_num_threads())
        names.add(threading.current_thread().name)
        return value * value

    with torch_threads(4):
        assert map_in_threads(square, range(20), workers) == [n * n for n in range(20)]
        assert torch.get_num_threads() == 4
        used = min(workers, 4)
        assert share == {4 // used}
        assert len(names) <= used
        # Threads that are started later begin with all.
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [4]
        assert map_in_threads(square, [], workers) == []


def test_the_first_error_is_raised_and_threads_are_as_before() -> None:
    def fail(value: int) -> int:
        if value > 2:
            raise ValueError(f"no {value}")
        return value

    with torch_threads(2):
        with pytest.raises(ValueError, match="no 3"):
            map_in_threads(fail, range(6), 2)
        assert torch.get_num_threads() == 2
