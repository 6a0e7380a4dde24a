"""Curation files: candidates with the verdict of a person on each.

A verdict belongs to the candidate at a position (0-based voxels z, y, x) in a tomogram of a name. Three
formats hold the same, and the suffix of the file says which:

- .json: ``{"format": "t3ssfast-curation", "version": 1, "tomograms": [{"name", "voxel_size_angstrom",
  "shape_zyx"}], "candidates": [{"tomogram", "z", "y", "x", "label", "score", "normal_z", "normal_y",
  "normal_x", "rot", "kind", ...}]}``; only tomogram, position and label are required;
- .csv: the columns of candidates.csv, and "label" and "curation_version";
- .star: the accepted candidates as RELION 5 reads them, where the sizes of all tomograms are known, and the
  blocks `t3ssfast_curation` (version, and the tomograms) and `t3ssfast_verdicts`.

Labels are "accepted", "rejected", "unsure", or empty for candidates that still wait for a verdict. The column
"chosen_by" says why a candidate was shown: "random" is the part that estimates the precision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import LABELS, Candidates
from t3ssfast.errors import ConfigError, InputError, ReadError, T3Error
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.files import display_path
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.relion.star import read_star, star_name, write_star
from t3ssfast.io.particles.relion.writing import relion_blocks
from t3ssfast.io.particles.tables import (
    NUMBER_DETAILS,
    TEXT_DETAILS,
    candidates_of_table,
    csv_lines,
    known_label,
    read_table,
)
from t3ssfast.io.particles.text import csv_table
from t3ssfast.tomogram import StrPath

__all__ = [
    "CURATION_SUFFIXES",
    "accepted_only",
    "is_curation",
    "load_all_curations",
    "load_curation",
    "read_curation",
    "save_curation",
]

FORMAT, VERSION = "t3ssfast-curation", 1
CURATION_SUFFIXES = (".json", ".csv", ".star")
POSITION = ("z", "y", "x")
NORMAL = ("normal_z", "normal_y", "normal_x")
VERSION_COLUMN = "curation_version"
# Two verdicts closer than this, in voxels, are on one candidate.
SAME_POSITION_VOXELS = 0.01
# Columns of the block of verdicts, by the field of a table.
STAR_COLUMNS = {name: f"t3ss{''.join(map(str.capitalize, name.split('_')))}" for name in (*POSITION, *NORMAL)}
STAR_COLUMNS |= {"tomogram": "rlnTomoName", "score": "t3ssScore", "rot": "t3ssRot", "kind": "t3ssKind"}
STAR_COLUMNS |= {
    "label": "t3ssLabel",
    "chosen_by": "t3ssChosenBy",
    "voxel_size_angstrom": "t3ssVoxelSizeAngstrom",
}
STAR_COLUMNS |= {"classifier_score": "t3ssClassifierScore", "verifier_score": "t3ssVerifierScore"}
STAR_SIZE = ["rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"]
VERDICTS_BLOCK, CURATION_BLOCK = "t3ssfast_verdicts", "t3ssfast_curation"
STAR_VERSION = "t3ssCurationVersion"
# Star files have no empty values.
NO_VALUE = "none"


def load_curation(
    path: StrPath, *, voxel_size_angstrom: float | None = None, tomogram: str | None = None
) -> Candidates:
    """Read the candidates of one tomogram and the verdicts on them.

    Parameters
    ----------
    path
        Curation file: .json, .csv or .star, as the report and napari save them.
    voxel_size_angstrom
        Voxel size that the returned positions refer to; None for that in the file.
    tomogram
        Name of the tomogram, if the file has several.

    Returns
    -------
    Candidates
        `label` holds the verdicts, and `details["chosen_by"]` why each was shown, where the file says so.

    Raises
    ------
    ReadError
        If the file is missing, is no curation file, or has several tomograms and `tomogram` is None.
    VoxelSizeError
        If neither the file nor the call gives the voxel size.
    """
    found = load_all_curations(path, voxel_size_angstrom=voxel_size_angstrom)
    names = [some.tomogram_name for some in found]
    listed = ", ".join(map(repr, names[:5])) + (" ..." if len(names) > 5 else "")
    if tomogram is not None:
        if tomogram not in names:
            raise ReadError(
                f"{display_path(path)}: no verdicts on {tomogram!r} (it has {listed}); check the name."
            )
        return found[names.index(tomogram)]
    if len(found) != 1:
        raise ReadError(
            f"{display_path(path)}: verdicts on {len(found)} tomograms ({listed}); give one as tomogram, or "
            "read all with load_all_curations."
        )
    return found[0]


def load_all_curations(path: StrPath, *, voxel_size_angstrom: float | None = None) -> list[Candidates]:
    """Read the candidates of every tomogram in a curation file; parameters as for `load_curation`."""
    return read_curation(ParticleFile(Path(path), voxel_size_angstrom))


def read_curation(file: ParticleFile) -> list[Candidates]:
    """Read a curation file; see `load_curation`."""
    readers = {".json": _read_json, ".csv": _read_csv, ".star": _read_star}
    reader = readers.get(file.path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{file}: the suffix of a curation file is {', '.join(CURATION_SUFFIXES)}; rename it or give "
            "another."
        )
    return [_without_repetitions(file, some) for some in reader(file)]


def accepted_only(candidates: Candidates) -> Candidates:
    """Return the accepted candidates of a curation; all of them where there is no verdict."""
    if not (candidates.label != "").any():
        return candidates
    return candidates[candidates.label == "accepted"]


def is_curation(file: ParticleFile) -> bool:
    """Return whether a JSON or star file is a curation file."""
    if file.path.suffix.lower() == ".star":
        return re.search(rf"^data_{VERDICTS_BLOCK}\s*$", file.read_text(), re.MULTILINE) is not None
    return re.search(rf'"format"\s*:\s*"{FORMAT}"', file.read_text()[:4096]) is not None


def save_curation(candidates: Candidates | Sequence[Candidates], path: StrPath) -> Path:
    """Write candidates and the verdicts on them, atomically; the suffix gives the format.

    Parameters
    ----------
    candidates
        Candidates with labels, of one tomogram or of several with different names.
    path
        File to write: .json, .csv or .star.

    Raises
    ------
    ConfigError
        If the suffix is unknown.
    InputError
        If two entries have the same tomogram name.
    OutputError
        If the file cannot be written.
    """
    sequence = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    names = [some.tomogram_name for some in sequence]
    if not sequence or len(set(names)) != len(names):
        raise InputError(f"candidates: the tomograms are {names}; give at least one, with different names.")
    target = Path(path)
    writers = {".json": _write_json, ".csv": _write_csv, ".star": _write_star}
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise ConfigError(
            f"{display_path(path)}: the suffix of a curation file is {', '.join(CURATION_SUFFIXES)}; change "
            "the name."
        )
    writer(target, sequence)
    return target


def _table(candidates: Sequence[Candidates]) -> pd.DataFrame:
    """Return one row per candidate, with the tomogram and its voxel size."""
    tables = []
    for some in candidates:
        table = some.to_dataframe().drop(columns=["tilt", "psi"])
        table["label"] = some.label
        table["tomogram"] = [some.tomogram_name] * len(some)
        table["voxel_size_angstrom"] = some.voxel_size_angstrom
        tables.append(table)
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return whole


def _write_json(path: Path, candidates: Sequence[Candidates]) -> None:
    tomograms = [
        {
            "name": some.tomogram_name,
            "voxel_size_angstrom": some.voxel_size_angstrom,
            "shape_zyx": None if some.tomogram_shape is None else list(map(int, some.tomogram_shape)),
        }
        for some in candidates
    ]
    rows = []
    for row in _table(candidates).drop(columns="voxel_size_angstrom").to_dict(orient="records"):
        plain = {str(name): _plain(value) for name, value in row.items()}
        rows.append({name: value for name, value in plain.items() if value is not None})
    content = {"format": FORMAT, "version": VERSION, "tomograms": tomograms, "candidates": rows}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON has it: float32 with its own digits, None for NaN."""
    if isinstance(value, str):
        return value
    number = float(np.format_float_positional(np.float32(value), unique=True))
    return number if np.isfinite(number) else None


def _write_csv(path: Path, candidates: Sequence[Candidates]) -> None:
    table = csv_table(candidates)
    labels = np.concatenate([some.label for some in candidates])
    table = table.assign(label=labels, curation_version=VERSION)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8")


def _write_star(path: Path, candidates: Sequence[Candidates]) -> None:
    table = _table(candidates)
    known = {name: column for name, column in STAR_COLUMNS.items() if name in table}
    verdicts: pd.DataFrame = pd.DataFrame({column: table[name] for name, column in known.items()})
    for column in verdicts.columns:
        if not pd.api.types.is_numeric_dtype(verdicts[column]):
            verdicts[column] = [
                star_name(str(value)) if str(value) else NO_VALUE for value in verdicts[column]
            ]
        else:
            verdicts[column] = verdicts[column].astype(np.float64)
    tomograms = pd.DataFrame(
        [
            {STAR_VERSION: VERSION, STAR_COLUMNS["tomogram"]: star_name(some.tomogram_name)}
            | {STAR_COLUMNS["voxel_size_angstrom"]: some.voxel_size_angstrom}
            | dict(zip(STAR_SIZE, (some.tomogram_shape or (0, 0, 0))[::-1], strict=True))
            for some in candidates
        ]
    )
    blocks: dict[str, pd.DataFrame] = {}
    if all(some.tomogram_shape is not None for some in candidates):
        accepted = [some[some.label == "accepted"] for some in candidates]
        blocks = relion_blocks(accepted, "relion5", None, False)
    write_star(path, blocks | {CURATION_BLOCK: tomograms, VERDICTS_BLOCK: verdicts})


def _read_json(file: ParticleFile) -> list[Candidates]:
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT:
            raise KeyError("format")
        version, listed, rows = content["version"], content["tomograms"], content["candidates"]
        tomograms = pd.DataFrame(
            [{"tomogram": _name(entry["name"]), **_size(file, entry)} for entry in listed],
            columns=["tomogram", "voxel_size_angstrom", "shape"],
        )
        texts = {"tomogram": [_name(row["tomogram"]) for row in rows]}
        texts["label"] = [_label(file, row.get("label", "")) for row in rows]
        texts["kind"] = [_name(row.get("kind", "t3ss")) for row in rows]
        numbers: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in POSITION}
        numbers["score"] = [row.get("score", 1.0) for row in rows]
        numbers["rot"] = [row.get("rot", 0.0) for row in rows]
        numbers |= {name: [row.get(name, float(name == NORMAL[0])) for row in rows] for name in NORMAL}
        # Some versions of pandas cannot hold the largest integers of JSON.
        columns = {name: file.parse_numbers(values) for name, values in numbers.items()}
        for name in NUMBER_DETAILS:
            if any(name in row for row in rows):
                values = [np.nan if row.get(name) is None else float(row[name]) for row in rows]
                columns[name] = np.asarray(values)
        for name in TEXT_DETAILS:
            if any(name in row for row in rows):
                texts[name] = [_name(row.get(name, "")) for row in rows]
    except T3Error:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ReadError(f"{file}: not a curation file of t3ssfast; give one that it saved.") from error
    _check_version(file, version)
    return _candidates(file, pd.DataFrame(texts | columns), tomograms)


def _size(file: ParticleFile, entry: dict[str, Any]) -> dict[str, Any]:
    """Return voxel size and shape of a tomogram in a JSON file; None where they are missing."""
    shape = entry.get("shape_zyx")
    if shape is not None:
        numbers = [int(n) for n in shape]
        shape = tuple(numbers) if len(numbers) == 3 and min(numbers) > 0 else None
    size = entry.get("voxel_size_angstrom")
    return {
        "voxel_size_angstrom": None if size is None else float(file.parse_numbers([size])[0]),
        "shape": shape,
    }


def _name(value: object) -> str:
    """Return a text that every file can hold; raise TypeError for others."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    # JSON may hold halves of characters, which UTF-8 cannot.
    return "".join("_" if "\ud800" <= c <= "\udfff" else c for c in value)


def _label(file: ParticleFile, word: object) -> str:
    label = known_label(word)
    if label is None:
        raise ReadError(
            f"{file}: the label {str(word)[:60]!r} is unknown; write {', '.join(LABELS)}, or nothing."
        )
    return label


def _check_version(file: ParticleFile, version: object) -> None:
    try:
        number = float(version)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if number != VERSION:
        raise ReadError(
            f"{file}: the version of the curation file is {str(version)[:20]!r}, and this t3ssfast reads "
            f"version {VERSION}; update t3ssfast."
        )


def _read_csv(file: ParticleFile) -> list[Candidates]:
    lines = csv_lines(file)
    if not lines:
        raise ReadError(f"{file}: the file is empty; give a curation file.")
    table = read_table(file, lines)
    named = {str(name).lower(): name for name in table}
    if "label" not in named:
        raise ReadError(f"{file}: no column is called label; give a curation file.")
    for word in table[named["label"]]:
        _label(file, word)
    if VERSION_COLUMN in named:
        for version in table[named[VERSION_COLUMN]].unique():
            _check_version(file, version)
    return candidates_of_table(file, lines)


def _read_star(file: ParticleFile) -> list[Candidates]:
    blocks = read_star(file.path)
    tomograms, verdicts = blocks.get(CURATION_BLOCK), blocks.get(VERDICTS_BLOCK)
    required = [STAR_COLUMNS[name] for name in ("tomogram", *POSITION, "label")]
    if tomograms is None or verdicts is None or not set(required) <= set(verdicts):
        raise ReadError(f"{file}: no block {VERDICTS_BLOCK}; give a curation file.")
    for version in tomograms.get(STAR_VERSION, pd.Series(["missing"])).unique():
        _check_version(file, version)
    if STAR_COLUMNS["tomogram"] not in tomograms:
        raise ReadError(f"{file}: the block {CURATION_BLOCK} names no tomogram; give a curation file.")
    table: pd.DataFrame = pd.DataFrame(
        {name: verdicts[column] for name, column in STAR_COLUMNS.items() if column in verdicts}
    )
    for name in ("label", "kind", "tomogram", *TEXT_DETAILS):
        if name in table:
            words = [str(value) for value in table[name]]
            table[name] = (
                words if name == "tomogram" else ["" if word == NO_VALUE else word for word in words]
            )
    table["label"] = [_label(file, word) for word in table["label"]]
    shapes: list[Any] = [None] * len(tomograms)
    if set(STAR_SIZE) <= set(tomograms):
        sizes = file.parse_numbers(tomograms[STAR_SIZE].to_numpy())
        shapes = [tuple(int(n) for n in size[::-1]) if size.min() > 0 else None for size in sizes]
    voxel_sizes: list[Any] = [None] * len(tomograms)
    if STAR_COLUMNS["voxel_size_angstrom"] in tomograms:
        voxel_sizes = file.parse_numbers(tomograms[STAR_COLUMNS["voxel_size_angstrom"]]).tolist()
    described = pd.DataFrame(
        {
            "tomogram": [str(name) for name in tomograms[STAR_COLUMNS["tomogram"]]],
            "voxel_size_angstrom": voxel_sizes,
            "shape": shapes,
        }
    )
    defaults = {"score": 1.0, "rot": 0.0, "kind": "t3ss", "normal_z": 1.0, "normal_y": 0.0, "normal_x": 0.0}
    missing: dict[str, Any] = {name: value for name, value in defaults.items() if name not in table}
    return _candidates(file, table.assign(**missing), described)


def _candidates(file: ParticleFile, table: pd.DataFrame, tomograms: pd.DataFrame) -> list[Candidates]:
    """Build candidates of a table with all columns, and of tomograms with voxel size and shape."""
    details: dict[str, npt.NDArray[Any]] = {
        # Star files have "<NA>" for what is missing.
        name: pd.to_numeric(table[name], errors="coerce").to_numpy(np.float32)
        for name in NUMBER_DETAILS
        if name in table
    }
    details |= {name: np.asarray(table[name], dtype=str) for name in TEXT_DETAILS if name in table}
    rows = zip(tomograms["tomogram"], tomograms["voxel_size_angstrom"], strict=True)
    sizes = {str(name): None if size is None or pd.isna(size) else float(size) for name, size in rows}
    found = file.candidates_by_tomogram(
        [str(name) for name in table["tomogram"]],
        sizes,
        file.parse_numbers(table[list(POSITION)].to_numpy()).reshape(-1, 3),
        score=file.parse_numbers(table["score"].to_numpy()),
        normal_zyx=_normals(file, table),
        rot_degrees=file.parse_numbers(table["rot"].to_numpy()),
        kind=np.asarray(table["kind"], dtype=str),
        label=np.asarray(table["label"], dtype=str),
        details=details,
    )
    shapes = dict(zip(tomograms["tomogram"], tomograms["shape"], strict=True))

    def shape_of(some: Candidates) -> tuple[int, int, int] | None:
        # The shape in the file is in its own voxels.
        own = file.voxel_size_angstrom in (None, sizes.get(some.tomogram_name))
        return shapes.get(some.tomogram_name) if own else file.tomogram_shape

    return [replace(some, tomogram_shape=shape_of(some)) for some in found]


def _normals(file: ParticleFile, table: pd.DataFrame) -> npt.NDArray[np.float32]:
    normal = file.parse_numbers(table[list(NORMAL)].to_numpy()).reshape(-1, 3).astype(np.float32)
    if (np.linalg.norm(normal, axis=1) == 0).any():
        raise ReadError(f"{file}: a normal has length 0; repair it.")
    return normal


def _without_repetitions(file: ParticleFile, candidates: Candidates) -> Candidates:
    """Return each candidate once; raise ReadError where verdicts on one contradict each other."""
    if len(candidates) < 2:
        return candidates
    cell = np.rint(candidates.centre_zyx.astype(np.float64) / SAME_POSITION_VOXELS)
    _, group = np.unique(cell, axis=0, return_inverse=True)
    group = group.reshape(-1)
    # Candidates with a verdict first: of several at one position the first is kept.
    order = np.argsort(candidates.label == "", kind="stable")
    _, first = np.unique(group[order], return_index=True)
    kept = order[first]
    label = candidates.label[kept][group]
    contradicting = np.flatnonzero((candidates.label != "") & (candidates.label != label))
    if len(contradicting):
        row = contradicting[0]
        z, y, x = candidates.centre_zyx[row]
        raise ReadError(
            f"{file}: the candidate at ({z:.1f}, {y:.1f}, {x:.1f}) of {candidates.tomogram_name!r} is both "
            f"{label[row]} and {candidates.label[row]}; remove one of the two."
        )
    return candidates[np.sort(kept)]
