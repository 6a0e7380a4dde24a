"""Plots: candidates on slices of the tomogram, galleries of their windows, averages, window statistics."""

from __future__ import annotations

from t3ssfast.plotting.average import draw_average
from t3ssfast.plotting.candidates import draw_candidates, draw_gallery
from t3ssfast.plotting.statistics import draw_statistics

__all__ = ["draw_average", "draw_candidates", "draw_gallery", "draw_statistics"]
