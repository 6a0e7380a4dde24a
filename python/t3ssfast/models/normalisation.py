"""The normalisation of grey values that a model expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from t3ssfast.errors import ConfigError

__all__ = ["Normalisation"]


@dataclass(frozen=True)
class Normalisation:
    """Parameters of the normalisation; part of a model's metadata.

    Parameters
    ----------
    highpass_nm
        Full width at half maximum of the Gaussian local mean that is subtracted from every slice; 0 disables
        the subtraction.
    clip
        Values are clipped to +-clip robust standard deviations.
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
        """Convert to plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """Invert `to_dict`."""
        return cls(float(values["highpass_nm"]), float(values["clip"]))
