"""Names for the columns of text tables, as a caller gives them.

A list names every column of a table in order ("class,x,y,z"; "-" skips one). Pairs name the columns of a
table with a header ("x=Xpos,y=Ypos,z=Zpos"), or give their numbers, which start at 1 ("x=2,y=3,z=4").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from t3ssfast.errors import ConfigError

__all__ = ["FIELDS", "Columns", "ColumnsArgument"]

ColumnsArgument: TypeAlias = "str | Sequence[str] | Mapping[str, str | int]"

POSITION = ("x", "y", "z")
POSE = ("rot", "tilt", "psi", "normal_x", "normal_y", "normal_z")
FIELDS = (*POSITION, "score", *POSE, "class", "kind", "tomogram", "voxel_size_angstrom")
SKIPPED = "-"


@dataclass(frozen=True)
class Columns:
    """Fields of all columns in order, or columns (name or number from 1) by field; the other is empty."""

    order: tuple[str, ...] = ()
    by_field: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, given: ColumnsArgument) -> Columns:
        """Check the columns that a caller gives; raise ConfigError for unknown or repeated fields."""
        if isinstance(given, Mapping):
            pairs = [(str(field), str(column)) for field, column in given.items()]
        else:
            words = re.split(r"[,\s]+", given.strip()) if isinstance(given, str) else list(map(str, given))
            if not any("=" in word for word in words):
                _check_fields([word for word in words if word != SKIPPED])
                return cls(order=tuple(words))
            pairs = []
            for word in words:
                field, _, column = word.partition("=")
                pairs.append((field, column))
        if not all(column for _, column in pairs):
            raise ConfigError(f"columns: {given!r} mixes names and pairs; give either, as in x=2,y=3,z=4.")
        _check_fields([field for field, _ in pairs])
        return cls(by_field=tuple(pairs))


def _check_fields(fields: Sequence[str]) -> None:
    unknown = next((field for field in fields if field not in FIELDS), None)
    if unknown is not None:
        listed = ", ".join(FIELDS)
        raise ConfigError(f"columns: {unknown!r} is unknown; give {listed}, or {SKIPPED} for other columns.")
    if len(set(fields)) < len(fields) or not set(POSITION) <= set(fields):
        raise ConfigError(f"columns: {', '.join(fields)} do not name x, y and z once each; name all three.")
