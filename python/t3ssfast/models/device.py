"""Selection of the device that a model runs on."""

from __future__ import annotations

import torch

from t3ssfast.errors import DeviceError

__all__ = ["check_device"]


def check_device(device: str | torch.device) -> torch.device:
    """Return the device, else raise DeviceError; "auto" chooses CUDA where it is available."""
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f'The device {name!r} cannot be used here; give "cpu" or "auto".') from error
    return chosen
