"""One threshold for the tomograms of a data set, from the decoys that their detections kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3ssfast.candidates import Candidates
from t3ssfast.detection.decoys import DECOY_FILE, Competition
from t3ssfast.detection.result import FORMATS
from t3ssfast.errors import InputError, ReadError
from t3ssfast.evaluation.false_discovery import FdrThreshold, fdr_threshold
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.io.particles.formats import export
from t3ssfast.tomogram import StrPath

__all__ = ["PooledDetection", "pool_fdr"]

SUMMARY_FILE = "false_discovery.json"


@dataclass(frozen=True)
class PooledDetection:
    """Candidates of several tomograms above a threshold that was found from the decoys of all of them.

    Parameters
    ----------
    threshold
        The threshold, with the estimated false-discovery rate and its interval.
    candidates
        One entry per tomogram, in the order of the folders; `tomogram_name` tells which.
    """

    threshold: FdrThreshold
    candidates: tuple[Candidates, ...]

    def save(self, out: StrPath) -> None:
        """Write candidates.star .csv .mod .tbl into a subfolder per tomogram, and false_discovery.json.

        Raises OutputError if a file cannot be written.
        """
        folder = results_folder(out, SUMMARY_FILE)
        for some in self.candidates:
            own = results_folder(folder / some.tomogram_name)
            for suffix, format in FORMATS.items():
                export(some, own / f"candidates{suffix}", format)
        with atomic_path(folder / SUMMARY_FILE) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        counts = {some.tomogram_name: len(some) for some in self.candidates}
        return {**self.threshold.to_dict(), "note": self.threshold.note, "candidates_by_tomogram": counts}


def pool_fdr(folders: Sequence[StrPath], max_fdr: float) -> PooledDetection:
    """Choose candidates of several finished detections at one false-discovery rate.

    Nothing is searched again. Each tomogram must have been detected with `DetectConfig(max_fdr=...)`, of any
    rate, and all with the same models. Pooling needs tomograms of one kind: one microscope, one way of
    reconstruction.

    Parameters
    ----------
    folders
        Result folders of `Detection.save`, one per tomogram.
    max_fdr
        False-discovery rate asked for, over all tomograms together.

    Raises
    ------
    ReadError
        A folder has no finished result with decoys.
    InputError
        There is no folder, two are of one tomogram, or their models differ.
    ConfigError
        `max_fdr` is not between 0 and 1.
    """
    if not folders:
        raise InputError("There is no result folder to pool; give at least one.")
    found: dict[str, Competition] = {}
    calibrated, models = 0.0, None
    for folder in map(Path, folders):
        name, competition, calibrated, own_models = _read(folder)
        if name in found:
            raise InputError(f"{display_path(folder)}: there are two results of {name}; give one of them.")
        if models is not None and own_models != models:
            raise InputError(
                f"{display_path(folder)}: it was detected with other models than the folders before it; "
                "detect all tomograms with the same models."
            )
        found[name], models = competition, own_models
    competitions = list(found.values())
    threshold = fdr_threshold(
        [c.log_odds for c in competitions],
        [c.decoy_log_odds for c in competitions],
        max_fdr,
        calibrated=calibrated,
    )
    return PooledDetection(threshold, tuple(c.above(threshold.threshold) for c in competitions))


def _read(folder: Path) -> tuple[str, Competition, float, Any]:
    """Return the tomogram's name, its candidates and decoys, the log-odds of even odds, and the models."""
    path = folder / "provenance.json"
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
        described, models = provenance["input"], provenance["models"]
        name = str(described["name"])
        grid = {
            "voxel_size_angstrom": float(described["voxel_size_angstrom"]),
            "tomogram_shape": tuple(described["shape_zyx"]),
        }
        checksums = [None if models[kind] is None else models[kind]["sha256"] for kind in sorted(models)]
        if "false_discovery" not in provenance:
            raise ReadError(f"{display_path(folder)}: it was detected without decoys; detect with --fdr.")
        calibrated = float(provenance["false_discovery"]["calibrated"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError(
            f"{display_path(folder)}: it holds no finished result of a detection ({path.name} cannot be "
            "read); give the folders that t3ssfast detect wrote."
        ) from error
    competition = Competition.read(folder / DECOY_FILE, **grid, tomogram_name=name)
    return name, competition, calibrated, checksums
