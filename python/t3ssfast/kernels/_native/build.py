"""What was built, and what was found on this machine."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from t3ssfast.kernels._native.extension import core

__all__ = ["SIMD", "best_level", "build_info", "openvino_version"]

# Instruction sets of the CPU kernel by their native numbers; the first is there on any machine.
SIMD = ("portable", "avx2", "avx512")


def build_info() -> dict[str, Any]:
    """What was built, and what was found on this machine.

    Returns
    -------
    compiler, openmp (its date), simd (the instruction set in use), simd_levels (those that `score_windows`
    can be held to, the best one last), cuda (whether the kernels were built), cuda_architectures,
    cuda_devices (how many can be used now), cuda_problem (why none), torch, threads, openvino (its version,
    None where it is not installed).
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
    """Version of the installed OpenVINO, by which segmenters can run; None where there is none.

    It is looked up without an import, which would report over the network.
    """
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


@cache
def best_level() -> int:
    """The best instruction set that this machine has, as an index into `SIMD`."""
    return int(core.build_info()["simd_level"])
