"""Plain napari layers, as (data, options, type) tuples, of tomograms, membranes and candidates.

Positions are voxels of the tomogram; the scale of every layer is its voxel size in nm, so layers of different
voxel sizes lie on each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.tomogram import Tomogram

__all__ = [
    "AXES_LAYER",
    "CANDIDATES_LAYER",
    "MEMBRANE_LAYER",
    "METADATA_KEY",
    "VERDICT_COLOURS",
    "LayerData",
    "axes_layer",
    "candidate_features",
    "candidates_layer",
    "image_layer",
    "membrane_layer",
    "verdict_colours",
]

LayerData = tuple[Any, dict[str, Any], str]

CANDIDATES_LAYER, AXES_LAYER, MEMBRANE_LAYER = "candidates", "axes", "membrane"
# Where a layer keeps what it was made from, among its metadata.
METADATA_KEY = "t3ssfast"
# Colours that people with red-green blindness can tell apart (Okabe and Ito 2008); not yellow, which is the
# colour of high scores.
VERDICT_COLOURS = {"accepted": "#009e73", "rejected": "#d55e00", "unsure": "#cc79a7", "": "#ffffff"}
# Diameter of a mark around a candidate, and length of its axis; the base of a T3SS is about 26 nm wide.
MARK_NM = 56.0
AXIS_NM = 45.0
# Grey values outside of these percentiles of a few slices are clipped.
CLIPPED_PERCENT = 0.5
SAMPLED_SLICES = 5


def image_layer(tomogram: Tomogram, **metadata: Any) -> LayerData:
    """Return an Image layer; the data stay memory-mapped."""
    data = tomogram.data
    if not data.dtype.isnative:
        # Textures are made of native numbers only.
        data = data.astype(data.dtype.newbyteorder("="))
    options: dict[str, Any] = {
        "name": tomogram.name,
        "colormap": "gray",
        "projection_mode": "mean",
        "metadata": {METADATA_KEY: {"tomogram": tomogram, **metadata}},
    }
    limits = _contrast_limits(data)
    if limits is not None:
        options["contrast_limits"] = limits
    return data, {**options, **_scale(tomogram.voxel_size_angstrom)}, "image"


def membrane_layer(mask: npt.NDArray[Any], voxel_size_angstrom: float) -> LayerData:
    """Return a Labels layer of a membrane mask; what is not 0 becomes 1."""
    labels = np.asarray(mask) if mask.dtype == np.uint8 else (np.asarray(mask) != 0).astype(np.uint8)
    options = {"name": MEMBRANE_LAYER, "opacity": 0.3, **_scale(voxel_size_angstrom)}
    return labels, options, "labels"


def candidates_layer(candidates: Candidates, name: str = CANDIDATES_LAYER, **metadata: Any) -> LayerData:
    """Return a Points layer: colours of the faces show the scores, those of the borders the verdicts."""
    options: dict[str, Any] = {
        "name": name,
        "features": candidate_features(candidates),
        "size": MARK_NM / (candidates.voxel_size_angstrom / 10),
        "symbol": "ring",
        "border_width": 0.05,
        # The particle stays visible below the ring.
        "opacity": 0.5,
        "projection_mode": "all",
        "metadata": {METADATA_KEY: {"candidates": candidates, **metadata}},
    }
    # napari cannot take the colours of no points.
    if len(candidates):
        options |= {
            "border_color": verdict_colours(candidates.label),
            "face_color": "score",
            "face_colormap": "viridis",
            "face_contrast_limits": (0.0, 1.0),
        }
    return candidates.centre_zyx.copy(), {**options, **_scale(candidates.voxel_size_angstrom)}, "points"


def axes_layer(candidates: Candidates, name: str = AXES_LAYER) -> LayerData:
    """Return a Vectors layer of the candidates' axes, out of the cell."""
    length = AXIS_NM / (candidates.voxel_size_angstrom / 10)
    data = np.stack([candidates.centre_zyx, candidates.normal_zyx * length], axis=1)
    options: dict[str, Any] = {
        "name": name,
        "edge_width": 4 / (candidates.voxel_size_angstrom / 10),
        "edge_color": "#56b4e9",
        "vector_style": "arrow",
        "projection_mode": "all",
        **_scale(candidates.voxel_size_angstrom),
    }
    return data, options, "vectors"


def candidate_features(candidates: Candidates) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of the Points layer: score, kind, verdict and the numbers among the details."""
    features: dict[str, npt.NDArray[Any]] = {
        "score": candidates.score.astype(np.float64),
        "kind": candidates.kind.astype(object),
        "verdict": candidates.label.astype(object),
    }
    for name, values in candidates.details.items():
        features[name] = values.astype(np.float64 if values.dtype.kind in "iuf" else object)
    return features


def verdict_colours(labels: npt.NDArray[np.str_]) -> npt.NDArray[np.float32]:
    """Return the (n, 4) colours of verdicts."""
    table = {
        label: [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] + [1.0]
        for label, colour in VERDICT_COLOURS.items()
    }
    return np.array([table[label] for label in labels.tolist()], np.float32).reshape(-1, 4)


def _scale(voxel_size_angstrom: float) -> dict[str, Any]:
    return {"scale": (voxel_size_angstrom / 10,) * 3, "units": ("nm",) * 3, "axis_labels": ("z", "y", "x")}


def _contrast_limits(data: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return grey values to show as black and white; None where the slices hold one value only."""
    depth = len(data)
    chosen = np.unique(np.linspace(depth // 4, 3 * depth // 4, SAMPLED_SLICES).astype(int))
    sample = np.stack([np.asarray(data[min(z, depth - 1)], np.float32) for z in chosen])
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    low, high = np.percentile(sample, [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    return (float(low), float(high)) if high > low else None
