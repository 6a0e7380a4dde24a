"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from t3ssfast.candidates import Candidates

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of small files that other projects made (licences in its README)."""
    return DATA


@pytest.fixture
def make_candidates() -> Callable[..., Candidates]:
    """Candidates at random places with random poses, the first two along +z and -z."""

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
