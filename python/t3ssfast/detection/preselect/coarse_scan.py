"""The coarse look: the classifier on few windows says near which of them the others are worth its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from t3ssfast.errors import InputError, ModelError

__all__ = ["CoarseScan"]


@dataclass(frozen=True)
class CoarseScan:
    """Every `stride`-th window is judged; a window is kept where one of those around it scores enough.

    A particle spans some twenty slices and its windows score high within a few pixels of its centre, so a
    grid of a few voxels cannot pass it by. Windows are kept in blocks of the strides: those of a block whose
    own look, or that of one of its 26 neighbours, reached the level.

    Parameters
    ----------
    stride_z, stride_yx
        Voxels of the model's grid from one look to the next.
    level
        Score of a look from which on it counts.
    figures
        What was measured on held-out tomograms.
    """

    stride_z: int = 4
    stride_yx: int = 4
    level: float = 0.1
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.stride_z, self.stride_yx) < 1 or not 0 <= self.level <= 1:
            raise InputError(
                f"A coarse look has strides {self.stride_z} and {self.stride_yx} and level {self.level}; "
                f"give strides of at least 1 and a level from 0 to 1."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"kind": "look", **asdict(self)}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> CoarseScan:
        """Inverse of `to_dict`.

        Raises
        ------
        ModelError
            If an entry is unknown or of the wrong kind.
        """
        try:
            values = {k: v for k, v in entries.items() if k != "kind"}
            for name, kind in (("stride_z", int), ("stride_yx", int), ("level", float)):
                values[name] = kind(values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ModelError(
                f"A coarse look cannot be read ({error}); give stride_z, stride_yx and level."
            ) from error
