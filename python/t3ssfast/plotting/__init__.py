"""Plots of results: candidates on slices of the tomogram, galleries of their windows, and averages."""

from __future__ import annotations

from t3ssfast.plotting.average import draw_average
from t3ssfast.plotting.candidates import draw_candidates, draw_gallery

__all__ = ["draw_average", "draw_candidates", "draw_gallery"]
