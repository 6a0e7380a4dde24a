"""Candidates in the particle files of other programs.

Positions and poses survive a round trip within 0.01 voxel and 0.01 degree if the format can hold them.
"""

from __future__ import annotations

from t3ssfast.io.particles.formats import (
    FORMATS,
    READ_FORMATS,
    WRITE_FORMATS,
    export,
    format_of,
    load_all_candidates,
    load_candidates,
)

__all__ = [
    "FORMATS",
    "READ_FORMATS",
    "WRITE_FORMATS",
    "export",
    "format_of",
    "load_all_candidates",
    "load_candidates",
]
