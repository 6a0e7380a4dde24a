"""How the extension was built, and which devices and instruction sets are available."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["SIMD", "best_simd_level", "build_info", "openvino_version"]

# SIMD instruction sets in the order of their native numbers; every machine has the first.
SIMD = ("portable", "avx2", "avx512")


def build_info() -> dict[str, Any]:
    """Return how the extension was built, and which devices and instruction sets are available.

    Returns
    -------
    dict
        compiler, openmp (date of its specification), simd (instruction set in use), simd_levels (instruction
        sets that this process can use, the best one last), cuda (whether CUDA kernels were built),
        cuda_architectures, cuda_devices (number of usable devices), cuda_problem (why there is none), torch,
        threads, openvino (its version, or None if it is not installed).
    """
    info = core.build_info()
    levels = list(SIMD[: info.pop("simd_level") + 1])
    return {
        **info,
        "simd_levels": levels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "openvino": openvino_version(),
    }


@cache
def openvino_version() -> str | None:
    """Return the version of the installed OpenVINO, or None if it is not installed.

    Does not import OpenVINO, which sends telemetry on import.
    """
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


@cache
def best_simd_level() -> int:
    """Return the best instruction set of this process, as an index into `SIMD`."""
    return int(core.build_info()["simd_level"])
