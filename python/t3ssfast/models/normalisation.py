"""What is done to the values of a tomogram, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t3ssfast.errors import ConfigError

__all__ = ["Normalisation"]


@dataclass(frozen=True)
class Normalisation:
    """How the values of a tomogram are prepared for a model; stored in the model's metadata.

    Parameters
    ----------
    highpass_nm
        Full width at half maximum of the Gaussian local mean that is subtracted from every slice; 0 subtracts
        nothing.
    clip
        Values are limited to +-clip robust standard deviations.
    """

    highpass_nm: float = 90.0
    clip: float = 6.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.highpass_nm) and self.highpass_nm >= 0):
            raise ConfigError(
                f"Normalisation.highpass_nm is {self.highpass_nm!r}; give 0 or more nanometres."
            )
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ConfigError(f"Normalisation.clip is {self.clip!r}; give a number above 0.")

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for a model's metadata."""
        return {"highpass_nm": self.highpass_nm, "clip": self.clip}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """The inverse of `to_dict`."""
        return cls(float(values["highpass_nm"]), float(values["clip"]))
