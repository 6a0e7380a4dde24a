"""Selection of the device that a model runs on."""

from __future__ import annotations

import warnings

import torch

from t3ssfast.errors import DeviceError, DeviceWarning
from t3ssfast.kernels import _native

__all__ = ["check_device", "kernel_problem"]


def kernel_problem() -> str:
    """Return why the native kernels cannot run on a CUDA device; empty if they can."""
    info = _native.build_info()
    return "" if info["cuda_devices"] else str(info["cuda_problem"])


def check_device(device: str | torch.device, *, kernels: bool = True) -> torch.device:
    """Return the device of a run.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1", or "auto": CUDA where it can be used, else the CPU.
    kernels
        Whether the run uses the native kernels, and not PyTorch alone.

    Raises
    ------
    DeviceError
        If the device cannot be used.

    Warns
    -----
    DeviceWarning
        If "auto" chooses the CPU although PyTorch finds a CUDA device.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and kernels and (problem := kernel_problem()):
            warnings.warn(
                f"The run uses the CPU, because the native kernels cannot use the CUDA device ({problem}); "
                "see `t3ssfast doctor`.",
                DeviceWarning,
                stacklevel=2,
            )
            name = "cpu"
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f'The device {name!r} cannot be used here; give "cpu" or "auto".') from error
    if chosen.type == "cuda" and kernels and (problem := kernel_problem()):
        raise DeviceError(
            f"The device {name!r} cannot be used here, because the native kernels cannot use it ({problem}); "
            'give "cpu" or "auto".'
        )
    return chosen
