"""Reading of tables with named columns (.csv, .tsv): those of t3ssfast, napari, CZII, BYU and others.

Separators are commas, semicolons, tabs or blanks; with semicolons, numbers may have decimal commas. Names are
compared without case. Positions are 0-based voxels x, y, z, except for:

- napari's points layers: axis-0, axis-1, axis-2 are z, y, x in voxels of the image (napari/napari,
  napari_builtins/io/_write.py);
- CZII's picks (the Kaggle challenge of 2024): experiment, particle_type, and x, y, z in Angstrom from the
  corner;
- BYU's flagellar motors (the Kaggle challenge of 2025): tomo_id, Motor axis 0, 1, 2 as z, y, x in voxels, -1
  without a motor, and Voxel spacing.

Columns that are not named in `ALIASES` are not used.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import LABELS, Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile, kinds_of_classes
from t3ssfast.io.particles.poses import rotation_from_relion

__all__ = ["candidates_of_table", "csv_lines", "known_label", "read_csv", "read_table"]

CENTRE = ["z", "y", "x"]
NORMAL = ["normal_z", "normal_y", "normal_x"]
EULER = ["rot", "tilt", "psi"]
TEXT = ("tomogram", "kind")
# Fields by lower-case name of the column; a name that is a field itself takes precedence.
ALIASES = {name: name for name in (*CENTRE, "score", *EULER, *NORMAL, "class", *TEXT, "voxel_size_angstrom")}
ALIASES |= {"axis-0": "z", "axis-1": "y", "axis-2": "x"}
ALIASES |= {"motor axis 0": "z", "motor axis 1": "y", "motor axis 2": "x"}
ALIASES |= {"tomo_id": "tomogram", "voxel spacing": "voxel_size_angstrom"}
ALIASES |= {"experiment": "tomogram", "particle_type": "kind", "confidence": "score"}
CZII_COLUMNS = {"experiment", "particle_type", *CENTRE}
# Columns of t3ssfast's own files, and the details among them.
LABEL = "label"
NUMBER_DETAILS = ("classifier_score", "verifier_score")
TEXT_DETAILS = ("chosen_by",)
ALIASES |= {name: name for name in (LABEL, *NUMBER_DETAILS, *TEXT_DETAILS)}
# What people write for the labels, in lower case.
LABEL_OF_WORD = {"accept": "accepted", "reject": "rejected"} | {label: label for label in ("", *LABELS)}
ABSENT_MOTOR = -1.0
MAX_COLUMNS = 1000
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def read_csv(file: ParticleFile) -> list[Candidates]:
    """Read a table with a header, or with the columns given; see `t3ssfast.io.particles.load_candidates`."""
    return candidates_of_table(file, csv_lines(file))


def csv_lines(file: ParticleFile) -> list[str]:
    """Return the lines of a table without comments and empty lines."""
    # Unlike str.splitlines, at ends of lines only: names may hold other separators of Unicode.
    lines = re.split(r"\r\n?|\n", file.read_text())
    return [line for line in lines if line.strip() and not line.startswith("#")]


def known_label(word: object) -> str | None:
    """Return the label that a word stands for, "" for none; None for other words."""
    return LABEL_OF_WORD.get(str(word).strip().lower())


def candidates_of_table(file: ParticleFile, lines: list[str]) -> list[Candidates]:
    """Build candidates from the lines of a table, the first of which may name its columns."""
    if not lines:
        raise ReadError(f"{file}: the file is empty; give a table with a line of names.")
    table = read_table(file, lines)
    lower = {str(name).lower() for name in table}
    if lower >= CZII_COLUMNS and file.columns is None and file.angstrom is None:
        file = file.with_angstrom()
    table = _named_fields(file, table)
    if "motor axis 0" in lower:
        absent = np.isclose(file.parse_numbers(table[CENTRE]), ABSENT_MOTOR).all(axis=1)
        table = table[~absent].reset_index(drop=True).assign(kind="flagellar_motor")
    if table.empty:
        return [file.candidates(np.zeros((0, 3)), voxel_size_angstrom=file.resolve_voxel_size(None))]
    rotation, fields = _pose_and_fields(file, table)
    names = [file.path.stem] * len(table)
    if "tomogram" in table:
        names = [_unescape_formula(name) for name in table["tomogram"]]
    sizes: dict[str, float | None] = {}
    if "voxel_size_angstrom" in table:
        values = pd.to_numeric(table["voxel_size_angstrom"], errors="coerce")
        for name, size in zip(names, values.tolist(), strict=True):
            sizes.setdefault(name, size if np.isfinite(size) else None)
    return file.candidates_by_tomogram(names, sizes, file.parse_numbers(table[CENTRE]), rotation, **fields)


def read_table(file: ParticleFile, lines: list[str]) -> pd.DataFrame:
    """Parse the lines of a table, the first of which may name its columns, into columns of text."""
    separator = next((mark for mark in ";\t," if mark in lines[0]), r"\s+")
    mark = None if separator == r"\s+" else separator
    if any(len(line.split(mark, MAX_COLUMNS)) > MAX_COLUMNS for line in lines):
        raise ReadError(f"{file}: a line has more than {MAX_COLUMNS} values; give a particle file.")
    has_header = any(_number(word) is None for word in re.split(separator, lines[0].strip()))
    if not has_header and file.columns is None:
        raise ReadError(
            f"{file}: the first line, {lines[0].strip()[:60]!r}, does not name the columns; name them, z, y, "
            "x and others, in this line or as columns (--columns)."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Lines with more values than names.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table: pd.DataFrame = pd.read_csv(
                io.StringIO("\n".join(line.strip("\n") for line in lines)),
                sep=separator,
                header=0 if has_header else None,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
            )
    except pd.errors.ParserWarning as error:
        raise ReadError(f"{file}: a line has more values than names; name or remove the others.") from error
    except Exception as error:  # pandas raises errors of many types
        reason = " ".join(str(error).split()).rstrip(".")[:120]
        raise ReadError(f"{file}: reading the table failed: {reason}; check the file.") from error
    if separator == ";":
        table = _without_decimal_commas(table)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return table


def _without_decimal_commas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with points for commas in columns of numbers, unless any of these has points."""
    numbers = [
        name for name in range(table.shape[1]) if all(_number(v) is not None for v in table.iloc[:, name])
    ]
    if any(table.iloc[:, name].str.contains(".", regex=False).any() for name in numbers):
        return table
    for name in numbers:
        table.isetitem(name, table.iloc[:, name].str.replace(",", ".", regex=False).to_numpy())
    return table


def _number(word: str) -> float | None:
    try:
        return float(word.strip().strip('"').replace(",", "."))
    except ValueError:
        return None


def _named_fields(file: ParticleFile, table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are used, under the names of their fields."""
    names = [str(name) for name in table]
    by_field: dict[str, str] = {}
    if file.columns is not None and file.columns.order:
        if len(file.columns.order) != len(names):
            raise ReadError(
                f"{file}: {len(file.columns.order)} columns were named, and the table has {len(names)}; name "
                "each, or skip it with -."
            )
        by_field = dict(zip(file.columns.order, names, strict=True))
        by_field.pop("-", None)
    elif file.columns is not None:
        by_field = {field: _column_called(file, column, names) for field, column in file.columns.by_field}
    else:
        for name in names:
            field = ALIASES.get(name.lower())
            # A column called like the field takes precedence, and then the first one.
            if field is not None and (field not in by_field or name == field):
                by_field[field] = name
        if "vertex-index" in names:
            raise ReadError(f"{file}: vertices of shapes (vertex-index); give a layer of points.")
        extra = sorted(name for name in names if re.fullmatch(r"axis-([3-9]|\d\d+)", name))
        if extra:
            raise ReadError(f"{file}: points of {len(extra) + 3} axes ({extra[0]}); give points in z, y, x.")
    if not set(CENTRE) <= set(by_field):
        raise ReadError(
            f"{file}: the columns are {', '.join(names)[:120]}; call the positions z, y, x (or axis-0, "
            "axis-1, axis-2), or name the columns as columns (--columns x=...,y=...,z=...)."
        )
    named: pd.DataFrame = pd.DataFrame({field: table[name] for field, name in by_field.items()})
    return named


def _column_called(file: ParticleFile, column: str, names: list[str]) -> str:
    """Return the name of a column that is given by name or number."""
    if column in names and not names[0].isdecimal():
        return column
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return names[int(column) - 1]
    listed = ", ".join(names)[:120]
    raise ReadError(f"{file}: there is no column {column!r} ({listed}); give a name or a number from 1.")


def _pose_and_fields(file: ParticleFile, table: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Return the rotations, if the table has three angles, and the other fields of `Candidates`."""
    rotation = None
    fields: dict[str, Any] = {}
    for column, field in {"score": "score", "rot": "rot_degrees"}.items():
        if column in table:
            fields[field] = file.parse_numbers(table[column])
    if set(NORMAL) <= set(table):
        # The file has float32 normals; without rounding, a round trip would change them.
        fields["normal_zyx"] = file.parse_numbers(table[NORMAL]).astype(np.float32)
        if (np.linalg.norm(fields["normal_zyx"], axis=1) == 0).any():
            raise ReadError(f"{file}: a normal has length 0; repair it or remove the columns.")
    elif set(EULER) <= set(table):
        rotation = rotation_from_relion(file.parse_numbers(table[EULER]))
    if "kind" in table:
        fields["kind"] = np.array([_unescape_formula(kind) for kind in table["kind"]], dtype=str)
    elif "class" in table:
        fields["kind"] = kinds_of_classes(file.parse_numbers(table["class"]))
    if LABEL in table:
        # Columns of this name in files of other programs hold other words.
        labels = [known_label(word) for word in table[LABEL]]
        if None not in labels:
            fields["label"] = np.array(labels, dtype=str)
    details = {name: _numbers_or_nan(table[name]) for name in NUMBER_DETAILS if name in table}
    details |= {name: np.array(table[name], dtype=str) for name in TEXT_DETAILS if name in table}
    return rotation, fields | {"details": details}


def _numbers_or_nan(values: pd.Series[Any]) -> npt.NDArray[np.float32]:
    """Return numbers, and NaN for what is none."""
    return np.asarray(pd.to_numeric(values, errors="coerce"), np.float32)


def _unescape_formula(name: str) -> str:
    """Remove the apostrophe that marks a name as text for spreadsheets."""
    return name[1:] if name.startswith("'") and FORMULA.match(name) else name
