"""Folders of results, as `t3ssfast detect` leaves them: one for a tomogram, or a folder of such folders."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError, ReadError
from t3ssfast.io import display_path, read, read_mask
from t3ssfast.io.files import stat_path, tomogram_name
from t3ssfast.io.particles import load_candidates
from t3ssfast.io.tomogram_names import match_names
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["CANDIDATES_FILE", "Results", "find_results", "open_tomogram_of"]

CANDIDATES_FILE = "candidates.csv"
PROVENANCE_FILE = "provenance.json"
MEMBRANE_FILE = "membrane.mrc"
# Larger files are no provenance.
MAX_PROVENANCE_BYTES = 16 << 20


@dataclass(frozen=True)
class Results:
    """The results of one tomogram.

    Parameters
    ----------
    folder
        Where they are.
    candidates
        All candidates of the folder.
    provenance
        Content of provenance.json; it is not trusted, and parts may be missing.
    """

    folder: Path
    candidates: Candidates
    provenance: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the tomogram."""
        return self.candidates.tomogram_name

    @property
    def contrast_sign(self) -> int:
        """1 where protein is dark in the tomogram, -1 where it is bright."""
        contrast = self.provenance.get("contrast")
        return -1 if isinstance(contrast, dict) and contrast.get("sign") == -1 else 1

    def membrane_path(self) -> Path | None:
        """Return the path of the membrane mask: in the folder, or the one that was given to the detection."""
        if (self.folder / MEMBRANE_FILE).is_file():
            return self.folder / MEMBRANE_FILE
        given = self.provenance.get("membrane")
        path = given.get("path") if isinstance(given, dict) else None
        return _existing(path, self.folder)

    def read_membrane(self, tomogram: Tomogram) -> Any:
        """Return the membrane mask of the tomogram, (z, y, x), or None where there is none."""
        path = self.membrane_path()
        return None if path is None else read_mask(path, tomogram, allow_empty=True)


def find_results(folders: StrPath | Sequence[StrPath]) -> list[Results]:
    """Load the results in folders, and in the folders directly inside them.

    Parameters
    ----------
    folders
        Folders of results, or folders that hold them; one of either, or several.

    Returns
    -------
    One entry for each tomogram, with different names, in the order given and by name within a folder.

    Raises
    ------
    ReadError
        If a folder is missing or its files cannot be read.
    InputError
        If a folder holds no results.
    """
    given = [folders] if isinstance(folders, (str, os.PathLike)) else list(folders)
    if not given:
        raise InputError("No folder of results was given; give at least one.")
    found: list[Results] = []
    for folder in map(Path, given):
        stat_path(folder)
        if not folder.is_dir():
            raise ReadError(f"{display_path(folder)}: this is a file; give the folder of results.")
        if (folder / CANDIDATES_FILE).is_file():
            inside = [folder]
        else:
            inside = sorted(path.parent for path in folder.glob(f"*/{CANDIDATES_FILE}"))
        if not inside:
            raise InputError(
                f"{display_path(folder)}: neither the folder nor those in it hold {CANDIDATES_FILE}; give a "
                "folder that t3ssfast detect wrote."
            )
        found += [_load(path) for path in inside]
    if len({one.folder.resolve() for one in found}) < len(found):
        raise InputError("A folder of results is given twice; give each once.")
    return _with_distinct_names(found)


def _load(folder: Path) -> Results:
    provenance: dict[str, Any] = {}
    path = folder / PROVENANCE_FILE
    try:
        if path.stat().st_size <= MAX_PROVENANCE_BYTES:
            content = json.loads(path.read_text(encoding="utf-8"))
            provenance = content if isinstance(content, dict) else {}
    except (OSError, ValueError, RecursionError):
        # Candidates without a provenance can still be looked at.
        pass
    described = provenance.get("input")
    described = described if isinstance(described, dict) else {}
    size, shape = described.get("voxel_size_angstrom"), described.get("shape_zyx")
    known: dict[str, Any] = {}
    if isinstance(size, (int, float)) and size > 0:
        known["voxel_size_angstrom"] = float(size)
    if isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape):
        known["tomogram_shape"] = tuple(shape)
    candidates = load_candidates(folder / CANDIDATES_FILE, **known)
    name = described.get("name")
    if isinstance(name, str) and name:
        candidates = replace(candidates, tomogram_name=name)
    elif not len(candidates):
        candidates = replace(candidates, tomogram_name=folder.resolve().name)
    return Results(folder, candidates, provenance)


def _with_distinct_names(found: list[Results]) -> list[Results]:
    """Name tomograms that are called alike after their folders."""
    names = [one.name for one in found]
    if len(set(names)) == len(names):
        return found
    folders = [one.folder.resolve().name for one in found]
    renamed = [folder if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
    if len(set(renamed)) < len(renamed):
        renamed = [str(one.folder.resolve()) for one in found]
    return [
        replace(one, candidates=replace(one.candidates, tomogram_name=name))
        for one, name in zip(found, renamed, strict=True)
    ]


def open_tomogram_of(results: Results, tomograms: Sequence[StrPath] = ()) -> Tomogram:
    """Open the tomogram that results are of.

    Parameters
    ----------
    tomograms
        Files and folders to look for it by name, before the path in the provenance.

    Raises
    ------
    ReadError
        If it is not found, or another tomogram is at its place.
    """
    path = _named_like(results.name, tomograms)
    described = results.provenance.get("input")
    recorded = described.get("path") if isinstance(described, dict) else None
    if path is None:
        path = _existing(recorded, results.folder)
    if path is None:
        where = f" at {display_path(recorded)}" if isinstance(recorded, str) else ""
        raise ReadError(
            f"{results.name}: the tomogram is not{where or ' known'}; give the file, or the folder that it "
            "is in, as --tomograms."
        )
    size = results.candidates.voxel_size_angstrom
    tomogram = read(path, voxel_size_angstrom=size)
    expected = results.candidates.tomogram_shape
    if expected is not None and tuple(tomogram.shape) != tuple(expected):
        raise ReadError(
            f"{display_path(path)}: its shape is {tuple(tomogram.shape)}, and the results are of a tomogram "
            f"of {tuple(expected)}; give that tomogram as --tomograms."
        )
    return tomogram


def _existing(recorded: object, folder: Path) -> Path | None:
    """Return the file of a path in a provenance: as it is, or relative to the results or a folder above."""
    if not isinstance(recorded, str) or not recorded:
        return None
    try:
        for base in (Path(), folder, *folder.resolve().parents[:3]):
            for candidate in (base / recorded, base / Path(recorded).name):
                if candidate.exists():
                    return candidate
    except (OSError, ValueError):
        # No path of this system.
        return None
    return None


def _named_like(name: str, tomograms: Sequence[StrPath]) -> Path | None:
    """Return the file that is called like a tomogram, among files and in folders."""
    files: dict[str, Path] = {}
    for path in map(Path, tomograms):
        stat_path(path)
        is_folder = path.is_dir() and path.suffix.lower() not in (".zarr", ".ome")
        for file in sorted(path.iterdir()) if is_folder else [path]:
            files.setdefault(tomogram_name(file), file)
    match = match_names([name], files)
    return files[match[name]] if match else None
