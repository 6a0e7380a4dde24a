"""Units of length in metadata."""

from __future__ import annotations

import math

__all__ = ["angstrom_per_unit"]

ANGSTROM_PER_UNIT = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "millimeter": 1e7, "meter": 1e10}
SYMBOLS = {"a": "angstrom", "å": "angstrom", "ångström": "angstrom", "angstroms": "angstrom"}
SYMBOLS |= {"nm": "nanometer", "nanometre": "nanometer", "nanometers": "nanometer"}
SYMBOLS |= dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometre"), "micrometer")
SYMBOLS |= {"mm": "millimeter", "millimetre": "millimeter", "m": "meter", "metre": "meter"}


def angstrom_per_unit(unit: object) -> float:
    """Return the length of a unit in Angstrom, NaN if it is unknown or None."""
    name = str(unit).strip().lower()
    return ANGSTROM_PER_UNIT.get(SYMBOLS.get(name, name), math.nan)
