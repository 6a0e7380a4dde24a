"""The missing wedge of a single-axis tilt series."""

from __future__ import annotations

import torch

from t3ssfast.errors import ConfigError

__all__ = ["check_tilt_range", "missing_wedge_weights"]


def check_tilt_range(tilt_range_degrees: tuple[float, float]) -> tuple[float, float]:
    """Return the lowest and highest tilt; raise ConfigError unless -90 <= lowest < highest <= 90 degrees."""
    try:
        low, high = (float(angle) for angle in tilt_range_degrees)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not -90 <= low < high <= 90:
        raise ConfigError(
            f"The tilt range is {tilt_range_degrees!r}; give the lowest and the highest tilt, between -90 "
            "and 90 degrees."
        )
    return low, high


def missing_wedge_weights(
    frequency_zyx: torch.Tensor, tilt_range_degrees: tuple[float, float]
) -> torch.Tensor:
    """Weight (..., 3) frequencies in cycles per box: 1 measured by a tilt series about y, 0 in the wedge.

    A projection at tilt a measures the plane spanned by y and (cos a, sin a) in (x, z).
    """
    kz, kx = frequency_zyx[..., 0], frequency_zyx[..., 2]
    # Friedel symmetry: the half with kx >= 0 has all its angles within -90 to 90 degrees.
    sign = torch.where(kx < 0, -1.0, 1.0)
    kz, kx = kz * sign, kx * sign
    low, high = (torch.deg2rad(kz.new_tensor(angle)) for angle in tilt_range_degrees)
    above = kz * torch.cos(high) - kx * torch.sin(high)
    below = kx * torch.sin(low) - kz * torch.cos(low)
    return (1 - torch.maximum(above, below)).clamp(0, 1)
