"""Window statistics of small images, of every kind and layout, with every SIMD instruction set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from processes import search_path
from t3ssfast import build_info

LEVELS = ("portable", "avx2", "avx512")


@pytest.mark.parametrize("level", LEVELS)
def test_statistics_of_small_images(level: str, soak: bool) -> None:
    """Run in a subprocess, because a process chooses its instruction set once."""
    if level not in build_info()["simd_levels"]:
        pytest.skip(f"this processor has no {level}")
    cases, seed = (20_000, 10) if soak else (300, 0)
    script = f"from sweep_window_statistics import sweep; sweep({cases}, {seed + LEVELS.index(level)})"
    environment = {**os.environ, "T3SSFAST_SIMD": level, "PYTHONPATH": search_path()}
    # Output is not captured, so that a sanitizer's report is visible.
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
