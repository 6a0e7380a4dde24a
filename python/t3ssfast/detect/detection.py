"""What was found in a tomogram, into a folder and back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.detect.checkpoint import Checkpoint
from t3ssfast.errors import T3Error
from t3ssfast.export import load_candidates, save_results
from t3ssfast.io import read
from t3ssfast.types import Candidates

__all__ = ["Detection", "finished"]

TABLES = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl")


@dataclass(frozen=True)
class Detection:
    """What was found in a tomogram, and how.

    Parameters
    ----------
    candidates
        In voxels of the given tomogram, highest score first.
    membrane
        (z, y, x) uint8 mask of the tomogram's shape, 1 is membrane; None where a mask was given.
    provenance
        Versions, models, configuration, input, counts and timings, as plain values for JSON.
    checkpoint
        Pieces from which it was made, on the disk until it is saved; None where there are none.
    """

    candidates: Candidates
    membrane: npt.NDArray[np.uint8] | None
    provenance: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = field(default=None, repr=False, compare=False)

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write candidates.star .csv .mod .tbl, membrane.mrc and provenance.json into a folder.

        Each file is written atomically, provenance.json last: where it is, the rest is whole. Then the pieces
        that were kept on the way are removed.

        Raises
        ------
        OutputError
            If the folder cannot be made or a file cannot be written.
        """
        size = self.candidates.voxel_size_angstrom
        save_results(out, self.candidates, self.membrane, size, self.provenance)
        if self.checkpoint is not None:
            self.checkpoint.remove()


def finished(folder: Path, key: str) -> Detection | None:
    """The results in a folder, where they are whole and were made from the same; None otherwise.

    Parameters
    ----------
    folder
        May be missing.
    key
        Of the input, the models, the configuration and the version (`Identity.key`).
    """
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        if provenance["key"] != key or not all((folder / name).is_file() for name in TABLES):
            return None
        described = provenance["input"]
        size, shape = float(described["voxel_size_angstrom"]), tuple(described["shape_zyx"])
        candidates = load_candidates(
            folder / "candidates.csv", voxel_size_angstrom=size, tomogram_shape=shape
        )
        membrane = None
        if provenance["models"]["segmenter"] is not None:
            membrane = np.asarray(read(folder / "membrane.mrc").data).view(np.uint8)
            if membrane.shape != shape:
                return None
    except (OSError, ValueError, KeyError, TypeError, T3Error):
        # Missing, half written by another program, or of another version: not what was asked for.
        return None
    if len(candidates) != provenance["counts"].get("candidates"):
        return None
    return Detection(candidates, membrane, provenance)
