"""Folders of results as a detection leaves them, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.detection.result import Detection
from t3ssfast.io import write

SHAPE = (24, 60, 64)
VOXEL_SIZE_ANGSTROM = 13.6
EXPECTED = {
    "score": [0.1, 0.5, 0.9],
    "precision": [0.5, 0.8, 1.0],
    "recall": [1.0, 0.9, 0.6],
    "tomograms": 8,
    "truth": 100,
}


def make_results(
    folder: Path, n: int = 6, *, seed: int = 0, name: str = "TS_01", volume: bool = True, **fields: Any
) -> Candidates:
    """Write a tomogram with dark spots and a membrane, and results with candidates at the spots."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "centre_zyx": rng.uniform(2, np.array(SHAPE) - 3, (n, 3)),
        "score": np.sort(rng.uniform(0.1, 1, n))[::-1],
        "normal_zyx": rng.normal(size=(n, 3)),
        "details": {
            "classifier_score": rng.random(n).astype(np.float32),
            "verifier_score": rng.random(n).astype(np.float32),
        },
    }
    candidates = Candidates(
        **(arrays | fields),
        voxel_size_angstrom=VOXEL_SIZE_ANGSTROM,
        tomogram_shape=SHAPE,
        tomogram_name=name,
    )
    membrane = np.zeros(SHAPE, np.uint8)
    membrane[4:20, 20:24, 8:50] = 1
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tomogram.mrc"
    if volume:
        data = rng.normal(0, 1, SHAPE).astype(np.float32)
        for z, y, x in np.rint(candidates.centre_zyx).astype(int):
            data[max(z - 2, 0) : z + 3, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] -= 4
        write(path, data, VOXEL_SIZE_ANGSTROM)
    provenance = {
        "software": {"t3ssfast": "0.1.0"},
        "input": {
            "name": name,
            "path": str(path),
            "shape_zyx": list(SHAPE),
            "voxel_size_angstrom": VOXEL_SIZE_ANGSTROM,
            "sha256": "0" * 64,
        },
        "contrast": {"sign": 1},
        "notes": ["A note of the detection."],
        "seconds": {"segment": 2.5, "classify": 1.25},
        "counts": {"candidates": n},
        "expected": EXPECTED,
    }
    Detection(candidates, membrane, provenance).save(folder, force=True)
    return candidates
