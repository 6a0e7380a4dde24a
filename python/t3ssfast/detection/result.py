"""What was found in a tomogram, into a folder and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import T3Error
from t3ssfast.io import atomic_path, read, results_folder, write
from t3ssfast.io.particles import load_candidates
from t3ssfast.io.particles.formats import export
from t3ssfast.runtime.checkpoint import CheckpointStore

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
    checkpoint: CheckpointStore | None = field(default=None, repr=False, compare=False)

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


def save_results(
    folder: str | os.PathLike[str],
    candidates: Candidates,
    membrane: npt.NDArray[Any] | None,
    voxel_size_angstrom: float,
    provenance: Mapping[str, Any],
) -> None:
    """Write a detection into a folder: candidates.star .csv .mod .tbl (.doc), membrane.mrc, provenance.json.

    Each file is written atomically; provenance.json last, so that its presence says the rest is whole.

    Parameters
    ----------
    folder
        Made where missing; files of these names in it are replaced.
    candidates, membrane
        The results; membrane (z, y, x) or None, then there is no membrane.mrc.
    voxel_size_angstrom
        Of the membrane's voxels.
    provenance
        What JSON can hold; numbers of NumPy and paths are converted.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    out = results_folder(folder, "provenance.json")
    if candidates.tomogram_shape is None and membrane is not None:
        z, y, x = membrane.shape
        candidates = replace(candidates, tomogram_shape=(int(z), int(y), int(x)))
    for name, format in (
        ("candidates.star", "relion5"),
        ("candidates.csv", "csv"),
        ("candidates.mod", "imod"),
        ("candidates.tbl", "dynamo"),
    ):
        export(candidates, out / name, format)
    if membrane is not None:
        write(out / "membrane.mrc", membrane, voxel_size_angstrom)
    with atomic_path(out / "provenance.json") as temporary:
        text = json.dumps(dict(provenance), indent=2, default=_plain)
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> Any:
    """What JSON makes of values it does not know."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
