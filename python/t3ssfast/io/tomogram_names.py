"""Names of one tomogram in files of different programs, and distinct names for files named alike.

RELION calls a tomogram TS_01, Warp and M TS_01.tomostar, RELION 3 and Dynamo /data/rec/TS_01.mrc, and its
file may be rec_TS_01.mrc, TS_01_12.00Apx.mrc or TS_01_Vol.mrc. MATLAB writes the number 7 as 7.000000.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from t3ssfast.errors import InputError
from t3ssfast.io.files import COMPRESSED_SUFFIXES, VOLUME_SUFFIXES, display_path, tomogram_name
from t3ssfast.tomogram import StrPath

__all__ = ["distinct_names", "match_names", "normalise_name", "require_common_names", "same_name"]

# Beside those of volumes: Warp's and M's lists, tilt series, and other volumes.
SUFFIXES = VOLUME_SUFFIXES | COMPRESSED_SUFFIXES
SUFFIXES |= {".tomostar", ".xml", ".mdoc", ".xf", ".tlt", ".em", ".hdf", ".h5", ".hdf5", ".tif", ".tiff"}
# RELION's and IMOD's names of a reconstruction; AreTomo's; Warp's voxel size in the file name.
PREFIX = re.compile(r"^rec_(?=.)", re.IGNORECASE)
ENDING = re.compile(r"(?<=.)(?:_vol|_rec|_full_rec|_\d+(?:\.\d+)?apx)$", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*$")


def normalise_name(name: object) -> str:
    """Return what the names of one tomogram have in common: "TS_01" of "/data/rec_TS_01_12.00Apx.mrc".

    Folders, suffixes of files, the prefix "rec_", the endings "_Vol", "_rec" and "_12.00Apx", and the zeros
    of a number written with decimals are left out; leading zeros are kept.
    """
    text, before = str(name), None
    # Until nothing changes: what is left out may uncover more.
    while text != before:
        before = text
        text = text.strip().strip("'\"").replace("\\", "/").rstrip("/")
        text = text.rsplit("@", 1)[-1].rsplit("/", 1)[-1]
        if number := WHOLE_NUMBER.fullmatch(text):
            return number[1]
        stem, dot, suffix = text.rpartition(".")
        if stem and f"{dot}{suffix}".lower() in SUFFIXES:
            text = stem
        text = ENDING.sub("", PREFIX.sub("", text))
    return text or str(name)


def same_name(a: object, b: object) -> bool:
    """Return whether two names are of the same tomogram."""
    return str(a) == str(b) or normalise_name(a) == normalise_name(b)


def match_names(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Return the name in `available` of each of `wanted` that has one: the same, else the same normalised.

    Names of `available` that are the same when normalised are matched exactly only.
    """
    names = list(dict.fromkeys(available))
    count = Counter(map(normalise_name, names))
    by_norm = {normalise_name(name): name for name in names if count[normalise_name(name)] == 1}
    matched: dict[str, str] = {}
    for name in wanted:
        found = name if name in names else by_norm.get(normalise_name(name))
        if found is not None:
            matched[name] = found
    return matched


def require_common_names(files: Mapping[str, Iterable[str]]) -> None:
    """Raise InputError if two files, each with the names of its tomograms, have no tomogram in common.

    Files without any tomogram agree with all others.
    """
    named = [(file, list(names)) for file, names in files.items()]
    named = [(file, names) for file, names in named if names]
    for file, names in named[1:]:
        first, expected = named[0]
        if not match_names(names, expected):
            raise InputError(
                f"{file}: its tomograms are {_listed(names)}, and none of them is in {first}, which has "
                f"{_listed(expected)}; name them alike, or say with --tomogram-name NAME=OTHER that OTHER is "
                "the tomogram NAME."
            )


def distinct_names(paths: Sequence[StrPath]) -> list[str]:
    """Return a different name for each tomogram file: its own, or with folders where several are named alike.

    Names differ in more than upper and lower case, so that they can be names of folders on any system.

    Raises
    ------
    InputError
        If a file is given twice.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    for path, count in Counter(absolute).items():
        if count > 1:
            raise InputError(f"{display_path(path)}: the file is given {count} times; give it once.")
    names = [tomogram_name(path) for path in paths]
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(name.casefold(), []).append(number)
    taken = {name for name, numbers in groups.items() if len(numbers) == 1}
    for numbers in groups.values():
        if len(numbers) == 1:
            continue
        folders = {n: [_plain(part) for part in absolute[n].parent.parts[1:]] for n in numbers}
        depths = range(1, max(map(len, folders.values())) + 1)
        tries = (
            [f"{'_'.join(folders[n][-depth:])}_{names[n]}".lstrip("_") for n in numbers] for depth in depths
        )
        # In one folder, as TS_01.mrc and TS_01.rec are, the suffix tells them apart.
        suffixed = [_plain(absolute[n].name) for n in numbers]
        numbered = [f"{names[n]}_{k}" for k, n in enumerate(numbers, 1)]
        for made in (*tries, suffixed, numbered):
            folded = {name.casefold() for name in made}
            if len(folded) == len(made) and not folded & taken:
                break
        taken |= folded
        for number, name in zip(numbers, made, strict=True):
            names[number] = name
    return names


def _plain(part: str) -> str:
    return re.sub(r"[^\w+-]", "_", part)


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(map(repr, unique[:5])) + (" ..." if len(unique) > 5 else "")
