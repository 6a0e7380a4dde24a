"""Normalisation: a tomogram resampled to a model's voxel size, with its grey values on a common scale.

Slices of the model's grid are prepared one at a time. The result does not depend on how the volume is cut
into slabs, and no float copy of the whole volume is held.
"""

from __future__ import annotations

from t3ssfast.detection.normalise.prepared import PreparedTomogram, neighbouring_slices

__all__ = ["PreparedTomogram", "neighbouring_slices"]
