"""The tomograms of a command: files, folders, patterns and lists, and the masks that belong to them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from t3ssfast.errors import InputError, ReadError

__all__ = ["find_tomograms", "mask_of_each", "result_folders"]

# In a folder these are tilt series and particle stacks, not tomograms.
NO_TOMOGRAMS = {".st", ".ali", ".mrcs"}
ZARR_FILES = (".zattrs", ".zgroup", ".zarray", "zarr.json")
OWN_VOLUMES = ("membrane", "membrane_probability", "labels")
# Endings of the names of masks, after the tomogram's name.
MASK_ENDINGS = ("", "_membrane", "_membranes", "_mask", "_seg", "_segmentation", "_search_mask", "_region")


def find_tomograms(paths: Sequence[Path], list_file: Path | None = None) -> tuple[list[Path], bool]:
    """Return the tomogram files that paths, folders, patterns and a list name, and whether they are a list.

    A folder stands for the tomograms in it, a pattern for the files that match, and a list holds one of
    either on each line, relative to the present folder or to the list's; lines that start with # are skipped.
    """
    found: dict[str, Path] = {}
    is_list = list_file is not None or len(paths) != 1
    single: list[Path] = []
    for path in [*paths, *(_read_list(list_file) if list_file is not None else ())]:
        files = _expand(path)
        if files is None:
            single.append(path)
            # A file that is named twice is reported, one that a pattern matches again is not.
            found[f"{os.path.abspath(path)}#{len(single)}"] = path
            continue
        is_list = True
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    named = {os.path.abspath(path) for path in single}
    return [path for key, path in found.items() if "#" in key or key not in named], is_list


def _expand(path: Path) -> list[Path] | None:
    """Return the tomograms in a folder or of a pattern; None for a single tomogram."""
    if path.is_dir():
        if _is_zarr(path):
            return None
        # The reader reports a folder without any.
        return [file for file in _volumes_in(path) if not _is_named_as_mask(file)] or None
    if path.exists() or not glob.has_magic(str(path)):
        return None
    files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    # The reader reports a name that nothing matches.
    return [file for match in files for file in (_expand(match) or [match])] or None


def _volumes_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _is_tomogram(file))


def _is_named_as_mask(path: Path) -> bool:
    """Whether a file is named as what t3ssfast writes beside tomograms, or as the mask of a tomogram."""
    from t3ssfast.io import tomogram_name

    name = tomogram_name(path).lower()
    return name in OWN_VOLUMES or name.endswith(MASK_ENDINGS[1:])


def _is_zarr(folder: Path) -> bool:
    return folder.suffix.lower() == ".zarr" or any((folder / name).exists() for name in ZARR_FILES)


def _is_tomogram(path: Path) -> bool:
    from t3ssfast.io.files import COMPRESSED_SUFFIXES, VOLUME_SUFFIXES

    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    if suffix in COMPRESSED_SUFFIXES:
        suffix = Path(path.stem).suffix.lower()
    if path.is_dir():
        return _is_zarr(path)
    return path.is_file() and suffix in VOLUME_SUFFIXES - NO_TOMOGRAMS


def _read_list(path: Path) -> list[Path]:
    from t3ssfast.io import display_path

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ReadError(
            f"{display_path(path)}: the list cannot be read ({reason}); give a text file of paths."
        ) from error
    names = [line.strip() for line in lines]
    named = [Path(name).expanduser() for name in names if name and not name.startswith("#")]
    if not named:
        raise InputError(f"{display_path(path)}: the list is empty; write one path on each line.")
    # A path that is nowhere is left for the reader to report.
    places = ((name, path.parent / name) for name in named)
    return [
        next((place for place in both if place.exists() or glob.glob(str(place))), both[0]) for both in places
    ]


def mask_of_each(tomograms: Sequence[Path], masks: Sequence[Path] | None, what: str) -> list[Path | None]:
    """Return the mask of each tomogram, or None for each if no masks were given.

    Masks are given in the order of the tomograms, or as a folder, where they are found by name.
    """
    if not masks:
        return [None] * len(tomograms)
    if len(masks) == 1 and masks[0].is_dir() and not _is_zarr(masks[0]) and _volumes_in(masks[0]):
        return [_mask_in(masks[0], path, what) for path in tomograms]
    if len(masks) != len(tomograms):
        raise InputError(
            f"There are {len(masks)} {what} masks for {len(tomograms)} tomograms; give one for each, or a "
            "folder with masks named after the tomograms."
        )
    return list(masks)


def _mask_in(folder: Path, tomogram: Path, what: str) -> Path:
    from t3ssfast.io import display_path, tomogram_name
    from t3ssfast.io.tomogram_names import normalise_name

    wanted = {normalise_name(tomogram_name(tomogram)) + ending for ending in MASK_ENDINGS}
    named = [file for file in _volumes_in(folder) if normalise_name(tomogram_name(file)) in wanted]
    if len(named) != 1:
        have, name = "several" if named else "no", tomogram_name(tomogram)
        raise InputError(
            f"{display_path(folder)}: it has {have} {what} masks of {name!r}; name one after the tomogram."
        )
    return named[0]


def result_folders(tomograms: Sequence[Path], out: Path, *, is_list: bool | None = None) -> list[Path]:
    """Return the output folder of each tomogram: `out` for a single one, else a subfolder of its name.

    A list (`is_list`; by default, more than one) has subfolders even where it names a single file. Files
    named alike in different folders get subfolders of different names.
    """
    from t3ssfast.io.tomogram_names import distinct_names

    names = distinct_names(tomograms)
    is_list = len(names) > 1 if is_list is None else is_list
    return [out / name for name in names] if is_list else [out]
