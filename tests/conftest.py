"""Options and fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# OpenBLAS reads this as NumPy is loaded in the processes that tests run in and start. Its threads spin while
# they wait, which takes the cores from the other processes of the tests: simulations cost twice the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from t3ssfast.candidates import Candidates

DATA = Path(__file__).parent / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long form of the tests, for hours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that only have a long form, unless `--soak` is given."""
    if config.getoption("--soak"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to run the long form of tests: more repetitions, more examples, larger inputs."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of small files from other projects (licences in its README)."""
    return DATA


@pytest.fixture
def make_candidates() -> Callable[..., Candidates]:
    """Function that makes candidates with random poses; the first two normals are along +z and -z."""

    def make(n: int = 20, seed: int = 0, **fields: object) -> Candidates:
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=(n, 3))
        normal[:2] = np.array([[1, 0, 0], [-1, 0, 0]])[:n]
        defaults: dict[str, object] = {
            "centre_zyx": rng.uniform(0, 1, (n, 3)) * (300, 1440, 1022),
            "score": np.sort(rng.random(n))[::-1],
            "normal_zyx": normal,
            "voxel_size_angstrom": 13.6,
            "tomogram_shape": (301, 1440, 1023),
            "tomogram_name": "TS_007",
            "rot_degrees": rng.uniform(-180, 180, n),
        }
        return Candidates(**(defaults | fields))  # type: ignore[arg-type]

    return make
