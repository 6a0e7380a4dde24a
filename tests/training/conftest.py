"""Fixtures of the tests of the training."""

from __future__ import annotations

import pytest
from training_toys import ball_example, columns, sheet_example

from t3ssfast.runtime.threads import torch_threads


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def sheets():
    """Tomograms, membranes and picks."""
    return columns(sheet_example(k) for k in range(3))


@pytest.fixture(scope="session")
def balls():
    """Tomograms, picks and candidates."""
    return columns(ball_example(k) for k in range(5))
