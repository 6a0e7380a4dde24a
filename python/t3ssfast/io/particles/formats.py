"""Candidates to and from the files of the field's other programs, and the folder of a detection's results.

Positions and poses round-trip within 0.01 voxel and 0.01 degree wherever the format has a place for them;
what a format cannot hold is said in its module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, ReadError
from t3ssfast.io import display_path
from t3ssfast.io.particles.copick import read_copick, write_copick
from t3ssfast.io.particles.dynamo import read_dynamo, write_dynamo
from t3ssfast.io.particles.imod import read_imod, write_imod
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.relion import read_relion, write_companions, write_relion4, write_relion5
from t3ssfast.io.particles.text import read_coords, read_csv, write_coords, write_csv

__all__ = ["FORMATS", "export", "format_of", "load_all_candidates", "load_candidates"]

FORMATS = ("relion5", "relion4", "dynamo", "imod", "copick", "csv", "coords")

_PLAIN_WRITERS: dict[str, Callable[[Path, Sequence[Candidates]], None]] = {
    "dynamo": write_dynamo,
    "imod": write_imod,
    "copick": write_copick,
    "csv": write_csv,
    "coords": write_coords,
}
_READERS: dict[str, Callable[[ParticleFile], list[Candidates]]] = {
    "relion5": read_relion,
    "relion4": read_relion,
    "dynamo": read_dynamo,
    "imod": read_imod,
    "copick": read_copick,
    "csv": read_csv,
    "coords": read_coords,
}
_FORMAT_OF_SUFFIX = {
    ".star": "relion5",
    ".tbl": "dynamo",
    ".mod": "imod",
    ".json": "copick",
    ".csv": "csv",
    ".txt": "coords",
    ".coords": "coords",
    ".xyz": "coords",
    ".pts": "coords",
}


def export(
    candidates: Candidates | Sequence[Candidates],
    path: str | os.PathLike[str],
    format: str = "relion5",
    *,
    tilt_series_pixel_size_angstrom: float | None = None,
    membrane_frame: bool = False,
    companions: bool = False,
) -> list[Path]:
    """Write candidates for another program, atomically.

    Parameters
    ----------
    candidates
        Of one tomogram; RELION, Dynamo and csv also take a sequence, one entry for each tomogram.
    path
        File to write. Dynamo's must end in .tbl and gets a .doc beside it; IMOD's is a model if it ends in
        .mod, otherwise text points; for copick the folder of a run (the file is
        `Picks/{user}_{session}_{object}.json` in it) or such a .json itself.
    format
        "relion5", "relion4", "dynamo", "imod", "copick", "csv" or "coords".
    tilt_series_pixel_size_angstrom
        Pixel size of the unbinned tilt series. Needed by RELION 4; for RELION 5 it adds `data_optics`.
    membrane_frame
        RELION only: write the pose into rlnTomoSubtomogramRot/Tilt/Psi, with the particle at tilt 90 in
        that frame and priors there, as RELION does for particles on surfaces, so that a refinement can be
        restrained to the membrane. Otherwise the pose is in rlnAngleRot/Tilt/Psi alone.
    companions
        RELION 5 only: also write tomograms.star, optimisation_set.star and the two-column import.star (with
        a file a tomogram in coordinates/) beside `path`. Needs `tilt_series_pixel_size_angstrom`.

    Returns
    -------
    The files written: `path`, then its companions.

    Raises
    ------
    ConfigError, InputError
        If the format is unknown, or needs something that is missing.
    OutputError
        If it cannot be written.
    """
    several = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    names = [some.tomogram_name for some in several]
    if not several or len(set(names)) != len(names):
        raise InputError(
            f"{len(names)} sets of candidates were given to write, of tomograms {names}; give at least one, "
            "and different names for different tomograms."
        )
    target = Path(path)
    if companions and format != "relion5":
        raise ConfigError(f"Companions are RELION 5's and the format is {format!r}; leave them out.")
    beside: list[Path] = []
    if companions:
        # First: what they need is asked for before anything is written.
        beside = write_companions(
            target, several, tilt_series_pixel_size_angstrom=tilt_series_pixel_size_angstrom
        )
    if format in ("relion5", "relion4"):
        writer = write_relion5 if format == "relion5" else write_relion4
        writer(
            target,
            several,
            tilt_series_pixel_size_angstrom=tilt_series_pixel_size_angstrom,
            membrane_frame=membrane_frame,
        )
    elif format in _PLAIN_WRITERS:
        _PLAIN_WRITERS[format](target, several)
    else:
        raise ConfigError(f"There is no format {format!r}; give one of {', '.join(FORMATS)}.")
    return [target, *beside]


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's name stands for (any .star: "relion5"; a folder: "copick").

    Raises
    ------
    ConfigError
        If the name stands for none.
    """
    file = Path(path)
    if file.is_dir():
        return "copick"
    if file.suffix.lower() not in _FORMAT_OF_SUFFIX:
        raise ConfigError(
            f"{display_path(path)}: {file.suffix or 'no suffix'} stands for no format of "
            "candidates (known are "
            f"{', '.join(_FORMAT_OF_SUFFIX)}); give the format."
        )
    return _FORMAT_OF_SUFFIX[file.suffix.lower()]


def load_all_candidates(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    voxel_size_angstrom: float | None = None,
    tomogram_shape: tuple[int, int, int] | None = None,
    tomograms: str | os.PathLike[str] | None = None,
) -> list[Candidates]:
    """Read candidates of every tomogram in a file; parameters and errors as `load_candidates`."""
    file = Path(path)
    if format is None:
        if not file.exists():
            raise ReadError(f"There is no file {display_path(path)}; check the name.")
        format = format_of(file)
    if format not in _READERS:
        raise ConfigError(f"There is no format {format!r}; give one of {', '.join(FORMATS)}.")
    source = ParticleFile(
        file, voxel_size_angstrom, tomogram_shape, None if tomograms is None else Path(tomograms)
    )
    return _READERS[format](source)


def load_candidates(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    voxel_size_angstrom: float | None = None,
    tomogram_shape: tuple[int, int, int] | None = None,
    tomogram: str | None = None,
    tomograms: str | os.PathLike[str] | None = None,
) -> Candidates:
    """Read the candidates of one tomogram from any format that `export` writes.

    Parameters
    ----------
    path
        The file; for copick also the folder of a run.
    format
        As for `export`; None: after the file's suffix (any RELION star file is recognised by its columns).
    voxel_size_angstrom
        Of the tomogram whose voxels the centres shall refer to. Positions in a file that tells its own
        voxel size (or is in Angstrom) are converted; those in one that does not are voxels of this size.
    tomogram_shape
        (z, y, x) voxels of that tomogram.
    tomogram
        Its name, for files of several.
    tomograms
        A RELION tomograms.star with sizes and pixel sizes.

    Returns
    -------
    Candidates
        Scores are 1 and normals along +z where the file has none.

    Raises
    ------
    ReadError
        If the file is missing, no candidate file, or of several tomograms and none was named.
    VoxelSizeError
        If neither the file nor the call tells the voxel size.
    """
    found = load_all_candidates(
        path,
        format=format,
        voxel_size_angstrom=voxel_size_angstrom,
        tomogram_shape=tomogram_shape,
        tomograms=tomograms,
    )
    names = [some.tomogram_name for some in found]
    if tomogram is not None:
        if tomogram not in names:
            raise ReadError(
                f"{display_path(path)} has no candidates of {tomogram!r}; it has {_listed(names)}."
            )
        return found[names.index(tomogram)]
    if len(found) > 1:
        raise ReadError(
            f"{display_path(path)} has candidates of {len(found)} tomograms "
            f"({_listed(names)}); name one (tomogram)."
        )
    if not found:
        return Candidates.empty(
            ParticleFile(Path(path), voxel_size_angstrom).voxel_size(None), tomogram_shape
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (" ..." if len(names) > 5 else "")
