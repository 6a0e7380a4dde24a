"""Statistics of small images, of every kind and layout, by every set of instructions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from processes import search_path
from t3ssfast import build_info

LEVELS = ("portable", "avx2", "avx512")


def sweep(level: str, cases: int, seed: int) -> None:
    """In a process of its own, as the instructions are chosen once for each."""
    if level not in build_info()["simd_levels"]:
        pytest.skip(f"this processor has no {level}")
    script = f"from sweep_statistics import sweep; sweep({cases}, {seed})"
    environment = {**os.environ, "T3SSFAST_SIMD": level, "PYTHONPATH": search_path()}
    # What a sanitizer says goes where the tests' own output goes.
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.parametrize("level", LEVELS)
def test_small_images(level: str) -> None:
    sweep(level, 300, LEVELS.index(level))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_twenty_thousand_small_images(level: str) -> None:
    sweep(level, 20_000, 10 + LEVELS.index(level))
