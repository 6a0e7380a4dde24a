"""Candidates to and from the files of other programs of the field.

Positions and poses round-trip within 0.01 voxel and 0.01 degree wherever the format has a place for them.
"""

from __future__ import annotations

from t3ssfast.io.particles.formats import (
    FORMATS,
    export,
    format_of,
    load_all_candidates,
    load_candidates,
)

__all__ = ["FORMATS", "export", "format_of", "load_all_candidates", "load_candidates"]
