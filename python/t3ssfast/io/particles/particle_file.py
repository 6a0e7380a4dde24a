"""A particle file to read, with the checks and conversions that all formats share."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import PARTICLE_KINDS, T3SS, Candidates
from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io import atomic_path, display_path
from t3ssfast.io.files import read_error, stat_path
from t3ssfast.io.particles.columns import Columns
from t3ssfast.io.particles.plausible import check_sizes_of_pixels
from t3ssfast.io.particles.poses import normal_and_rot
from t3ssfast.tomogram import PLACEHOLDER_VOXEL_SIZE_ANGSTROM, check_voxel_size

__all__ = [
    "ParticleFile",
    "is_unnamed",
    "kinds_in_file",
    "kinds_of_classes",
    "merge_candidates",
    "printable",
    "sorted_kinds",
    "text_of_number",
    "write_class_names",
]

# Several million particles; parsing takes many times the size of the file.
MAX_FILE_BYTES = 256 << 20
# Above this, float32 positions would be off by more than 0.01 voxel; no tomogram is that large.
MAX_VALUE = 1e7


@dataclass(frozen=True)
class ParticleFile:
    """A particle file, or folder of a copick run; `str` gives its name for messages.

    Positions are returned for the voxel size and (z, y, x) shape given, or else those in the file. Files with
    positions relative to the centre of the tomogram need RELION's tomograms.star. `angstrom` says whether the
    positions are in Angstrom; None leaves it to the format. `columns` names the columns of a text table.
    """

    path: Path
    voxel_size_angstrom: float | None = None
    tomogram_shape: tuple[int, int, int] | None = None
    tomograms_star: Path | None = None
    angstrom: bool | None = None
    columns: Columns | None = None

    def __post_init__(self) -> None:
        if self.voxel_size_angstrom is not None:
            size = check_voxel_size(self.voxel_size_angstrom, source="voxel_size_angstrom")
            object.__setattr__(self, "voxel_size_angstrom", size)

    def __str__(self) -> str:
        return display_path(self.path)

    def with_angstrom(self) -> ParticleFile:
        """Return the same file, with its positions in Angstrom."""
        return replace(self, angstrom=True)

    def read_bytes(self) -> bytes:
        """Read the file; raise ReadError if it is unreadable or too large for a particle file."""
        status = stat_path(self.path)
        if stat.S_ISDIR(status.st_mode):
            raise ReadError(f"{self}: this is a folder; give a particle file.")
        if status.st_size > MAX_FILE_BYTES:
            raise ReadError(
                f"{self}: the file has {status.st_size / 2**20:.0f} MiB, and particle files have at most "
                f"{MAX_FILE_BYTES >> 20} MiB; give a particle file."
            )
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise read_error(self.path, error) from error

    def read_text(self) -> str:
        """Read the file as UTF-8."""
        try:
            return self.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ReadError(f"{self}: not a UTF-8 text file; give a particle file.") from error

    def parse_numbers(self, values: Any) -> npt.NDArray[np.float64]:
        """Convert rows of values to an (n, k) array of finite numbers."""
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ReadError(f"{self}: a position, angle or score is not a number; repair it.") from error
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0]) + 1
            raise ReadError(f"{self}: particle {row} has a value that is not finite; remove it.")
        if np.abs(array).max(initial=0.0) > MAX_VALUE:
            raise ReadError(f"{self}: a value exceeds {MAX_VALUE:g}; give a particle file.")
        return array

    def parse_columns(
        self, lines: Sequence[str], columns: Sequence[int], *, finite: bool = True
    ) -> npt.NDArray[np.float64]:
        """Parse columns of whitespace-separated numbers into an (n, k) array; blank lines are skipped.

        Other columns may hold anything. NaN and infinity are refused if `finite`.
        """
        rows = [line for line in lines if line.strip()]
        if not rows:
            return np.zeros((0, len(columns)))
        try:
            values: npt.NDArray[np.float64] = np.loadtxt(rows, comments=None, usecols=columns, ndmin=2)
            return self.parse_numbers(values) if finite else values
        except ValueError as error:
            reason = str(error).rstrip(".")  # NumPy counts rows from 0, without blank lines
            raise ReadError(f"{self}: not a table of numbers ({reason}); repair the file.") from error

    def resolve_voxel_size(self, in_file: float | None) -> float:
        """Return the caller's voxel size, or else that of the file; raise VoxelSizeError without either."""
        if self.voxel_size_angstrom is not None:
            return self.voxel_size_angstrom
        if in_file is None or not in_file > 0:
            raise VoxelSizeError(f"{self}: no voxel size; give it as voxel_size_angstrom (--voxel-size).")
        return check_voxel_size(in_file, source=str(self))

    def voxel_size_and_scale(self, in_file: float | None) -> tuple[float, float]:
        """Return the voxel size of the positions to return, and the factor from the file's unit to it.

        `in_file` is the voxel size of the positions in the file; it is not used if they are in Angstrom.
        """
        # As in tomogram headers, 1 A in the file means that the voxel size is unknown.
        if in_file is not None and abs(in_file - PLACEHOLDER_VOXEL_SIZE_ANGSTROM) <= 1e-4:
            in_file = None
        voxel_size = self.resolve_voxel_size(in_file)
        if self.angstrom:
            return voxel_size, 1.0 / voxel_size
        if in_file is None or not in_file > 0:
            return voxel_size, 1.0
        return voxel_size, check_voxel_size(in_file, source=str(self)) / voxel_size

    def candidates(
        self, centre_zyx: npt.NDArray[Any], rotation: Rotation | None = None, **fields: Any
    ) -> Candidates:
        """Build candidates from positions, object-to-tomogram rotations and other fields of `Candidates`.

        Defaults: score 1, normal along +z, the caller's shape, and the file name as tomogram name.
        """
        n = len(centre_zyx)
        defaults: dict[str, Any] = {
            "score": np.ones(n),
            "normal_zyx": np.tile([1.0, 0.0, 0.0], (n, 1)),
            "tomogram_shape": self.tomogram_shape,
            "tomogram_name": self.path.stem,
        }
        if rotation is not None:
            fields["normal_zyx"], fields["rot_degrees"] = normal_and_rot(rotation)
        return Candidates(centre_zyx=centre_zyx, **(defaults | fields))

    def candidates_by_tomogram(
        self,
        names: Sequence[str],
        sizes_in_file: Mapping[str, float | None],
        centre_zyx: npt.NDArray[np.float64],
        rotation: Rotation | None = None,
        **fields: Any,
    ) -> list[Candidates]:
        """Build one `Candidates` per tomogram, in order of first appearance.

        `names` are the tomograms of the particles, `sizes_in_file` the voxel sizes by tomogram, in which
        `centre_zyx` are given. Tomograms without particles give empty `Candidates`.
        """
        unique = dict.fromkeys([*names, *sizes_in_file])
        grids = {name: self.voxel_size_and_scale(sizes_in_file.get(name)) for name in unique}
        scale = np.array([grids[name][1] for name in names]).reshape(-1, 1)
        # The voxel size of each tomogram is set below.
        particles = self.candidates(centre_zyx * scale, rotation, voxel_size_angstrom=1.0, **fields)
        array = np.asarray(names, dtype=object)
        for name, (voxel_size, factor) in grids.items():
            check_sizes_of_pixels(
                centre_zyx[array == name][:, ::-1],
                factor * voxel_size,
                self.tomogram_shape,
                voxel_size,
                self,
            )
        return [
            replace(particles[array == name], tomogram_name=name, voxel_size_angstrom=voxel_size)
            for name, (voxel_size, _) in grids.items()
        ]


def text_of_number(number: object) -> str:
    """Return the name of a numbered tomogram: "7" for 7, 7.0 and "7.000000"; leading zeros are kept."""
    return re.sub(r"^(\d+)\.0*$", r"\1", str(number).strip())


def printable(name: str) -> str:
    """Replace unprintable characters, such as line breaks, with underscores."""
    return "".join(c if c.isprintable() else "_" for c in name)


def sorted_kinds(candidates: Sequence[Candidates]) -> list[str]:
    """Return kinds in the order of their class numbers, which start at 1.

    T3SS are 1 and flagellar motors 2 in every file; numbers of other kinds follow.
    """
    kinds = {str(kind) for of_tomogram in candidates for kind in of_tomogram.kind}
    if kinds <= {T3SS}:
        return sorted(kinds)
    return [*PARTICLE_KINDS, *sorted(kinds - set(PARTICLE_KINDS))]


def kinds_of_classes(classes: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return the kinds of class numbers of other programs; 0 and 1 are T3SS."""
    numbers = np.asarray(classes).astype(np.int64)
    return np.array(["t3ss" if n in (0, 1) else f"class_{n}" for n in numbers], dtype=str)


def is_unnamed(kind: str) -> bool:
    """Return whether a kind is a class number of another program, whose meaning is unknown."""
    return re.fullmatch(r"class_-?\d+", kind) is not None


def class_names_path(path: Path) -> Path:
    """Return the file of the kinds by class number, beside a file of particles that holds numbers alone."""
    return path.with_suffix(".classes")


def write_class_names(path: Path, kinds: Sequence[str]) -> None:
    """Write the kinds by class number beside a file of particles, where there are other kinds than T3SS."""
    names = class_names_path(path)
    if set(kinds) <= {T3SS}:
        names.unlink(missing_ok=True)
        return
    lines = [f"{number} {printable(kind)}\n" for number, kind in enumerate(kinds, 1)]
    with atomic_path(names) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def kinds_in_file(file: ParticleFile, classes: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return the kinds of class numbers, by the names beside a file of t3ssfast, if there are any."""
    path = class_names_path(file.path)
    kinds = kinds_of_classes(classes)
    if not path.is_file():
        return kinds
    words = [line.split(maxsplit=1) for line in ParticleFile(path).read_text().splitlines()]
    names = {int(word[0]): word[1].strip() for word in words if len(word) == 2 and word[0].isdecimal()}
    numbers = np.asarray(classes).astype(np.int64).tolist()
    return np.array([names.get(n, kind) for n, kind in zip(numbers, kinds.tolist(), strict=True)], dtype=str)


def merge_candidates(parts: Sequence[Candidates]) -> Candidates:
    """Concatenate candidates of one tomogram, in the voxels of the first part."""
    merged = parts[0]
    for part in parts[1:]:
        scale = part.voxel_size_angstrom / merged.voxel_size_angstrom
        merged = merged.joined(replace(part, centre_zyx=part.centre_zyx * scale))
    return merged
