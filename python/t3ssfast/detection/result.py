"""The result of a detection, saved into a folder and loaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.decoys import DECOY_FILE, Competition
from t3ssfast.errors import OutputError, T3Error
from t3ssfast.io import atomic_path, display_path, read, results_folder, write
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.tomogram import StrPath

__all__ = [
    "PICTURES",
    "PROBABILITY_FILE",
    "Detection",
    "has_results",
    "load_finished",
    "refuse_other_input",
]

MEMBRANE_FILE = "membrane.mrc"
PROBABILITY_FILE = "membrane_probability.mrc"
PICTURES = ("candidates.png", "gallery.png")
# Formats of the candidates, by the suffix of the file.
FORMATS = {".star": "relion5", ".csv": "csv", ".mod": "imod", ".tbl": "dynamo"}


@dataclass(frozen=True)
class Detection:
    """The result of a detection.

    Parameters
    ----------
    candidates
        In voxels of the given tomogram, highest score first.
    membrane
        (z, y, x) uint8 mask of the tomogram's shape, 1 is membrane; None where a mask was given.
    provenance
        Versions, models, configuration, input, counts and timings, as plain values for JSON.
    checkpoint
        Finished slabs, kept on disk until the result is saved; None where none are kept.
    membrane_probability
        (z, y, x) uint8, the membrane probability as a fraction of 255; None unless it was asked for.
    competition
        All candidates down to low scores, and their decoys; None unless `max_fdr` was given.
    """

    candidates: Candidates
    membrane: npt.NDArray[np.uint8] | None
    provenance: dict[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointStore | None = field(default=None, repr=False, compare=False)
    membrane_probability: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    competition: Competition | None = field(default=None, repr=False)

    def save(self, out: StrPath, *, force: bool = False) -> None:
        """Write candidates.star .csv .mod .tbl (.doc), membrane.mrc and provenance.json into a folder.

        membrane_probability.mrc is written where the probability was kept, decoys.csv where decoys were
        scored.

        The folder is made if missing, files of these names are replaced, and an earlier probability is
        removed. Each file is written atomically, provenance.json last: where it is, the rest is complete. The
        checkpoint is removed afterwards. The results of another tomogram are replaced only with `force`; its
        membrane is then removed if this detection has none.

        Raises
        ------
        OutputError
            If the folder cannot be made, holds the results of another tomogram, or a file cannot be written.
        """
        # Imports pandas, which takes longer than many a step of a detection.
        from t3ssfast.io.particles.formats import export

        outdated = [] if self.membrane_probability is not None else [PROBABILITY_FILE]
        outdated += [] if self.competition is not None else [DECOY_FILE]
        try:
            refuse_other_input(Path(out), self.provenance.get("input"))
        except OutputError:
            if not force:
                raise
            if self.membrane is None and not self._used_as_mask(Path(out) / MEMBRANE_FILE):
                outdated.append(MEMBRANE_FILE)
        folder = results_folder(out, "provenance.json", *outdated)
        candidates = self.candidates
        if candidates.tomogram_shape is None and self.membrane is not None:
            candidates = replace(candidates, tomogram_shape=self.membrane.shape)
        for suffix, format in FORMATS.items():
            export(candidates, folder / f"candidates{suffix}", format)
        if self.membrane is not None:
            write(folder / MEMBRANE_FILE, self.membrane, candidates.voxel_size_angstrom)
        if self.membrane_probability is not None:
            probability = self.membrane_probability.astype(np.float32) / np.float32(255)
            write(folder / PROBABILITY_FILE, probability, candidates.voxel_size_angstrom)
        if self.competition is not None:
            self.competition.write(folder / DECOY_FILE)
        with atomic_path(folder / "provenance.json") as temporary:
            text = json.dumps(dict(self.provenance), indent=2, default=_plain)
            temporary.write_text(text + "\n", encoding="utf-8")
        if self.checkpoint is not None:
            self.checkpoint.remove()

    def _used_as_mask(self, path: Path) -> bool:
        """Return whether a file is the membrane mask that was given."""
        given = (self.provenance.get("membrane") or {}).get("path")
        return given is not None and Path(given).resolve() == path.resolve()


def has_results(folder: Path) -> bool:
    """Return whether a folder may hold finished results: `Detection.save` writes this file last."""
    return (folder / "provenance.json").exists()


def refuse_other_input(folder: Path, given: Mapping[str, Any] | None) -> None:
    """Raise OutputError if a folder holds the finished results of another tomogram than the one `given`.

    Tomograms are the same if name and content are, as the provenance records them.
    """
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        recorded = {name: provenance["input"][name] for name in ("name", "sha256")}
        where = provenance["input"].get("path") or recorded["name"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing finished, or not by a detection.
        return
    if given is None or any(given.get(name) != value for name, value in recorded.items()):
        raise OutputError(
            f"{display_path(folder)}: it holds the finished results of another tomogram, "
            f"{display_path(str(where))}; give another folder, or --force (force=True) to replace them."
        )


def load_finished(folder: Path, key: str, *, with_probability: bool = False) -> Detection | None:
    """Load the results in a folder if they are complete and their `Identity.key` is this; None otherwise."""
    # Imports pandas, which takes longer than many a step of a detection.
    from t3ssfast.io.particles import load_candidates

    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        complete = all((folder / f"candidates{suffix}").is_file() for suffix in FORMATS)
        if with_probability:
            complete = complete and (folder / PROBABILITY_FILE).is_file()
        if provenance["key"] != key or not complete:
            return None
        described = provenance["input"]
        size, shape = float(described["voxel_size_angstrom"]), tuple(described["shape_zyx"])
        candidates = load_candidates(
            folder / "candidates.csv", voxel_size_angstrom=size, tomogram_shape=shape
        )
        competition = None
        if provenance["config"].get("max_fdr") is not None:
            grid = {"voxel_size_angstrom": size, "tomogram_shape": shape}
            competition = Competition.read(
                folder / DECOY_FILE, **grid, tomogram_name=candidates.tomogram_name
            )
        membrane = None
        if provenance["models"]["segmenter"] is not None:
            membrane = np.asarray(read(folder / MEMBRANE_FILE).data).view(np.uint8)
            if membrane.shape != shape:
                return None
    except (OSError, ValueError, KeyError, TypeError, T3Error):
        # Missing, damaged, or of another version.
        return None
    if len(candidates) != provenance["counts"].get("candidates"):
        return None
    return Detection(candidates, membrane, provenance, competition=competition)


def _plain(value: object) -> Any:
    """A value that JSON does not know, as one that it does."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
