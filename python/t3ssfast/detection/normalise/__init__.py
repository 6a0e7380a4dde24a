"""Normalisation: a tomogram resampled to a model's voxel size, with its grey values on a common scale."""

from __future__ import annotations

from t3ssfast.detection.normalise.prepared import PreparedTomogram, neighbouring_slices

__all__ = ["PreparedTomogram", "neighbouring_slices"]
