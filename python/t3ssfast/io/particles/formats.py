"""Export and loading of candidates in the particle formats of other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError, ReadError
from t3ssfast.io import display_path
from t3ssfast.io.files import stat_path
from t3ssfast.io.particles.chimera_markers import write_chimera_markers
from t3ssfast.io.particles.chimerax import write_chimerax
from t3ssfast.io.particles.columns import Columns, ColumnsArgument
from t3ssfast.io.particles.copick import read_copick, write_copick
from t3ssfast.io.particles.cryolo import read_cbox
from t3ssfast.io.particles.curation import accepted_only, is_curation, read_curation
from t3ssfast.io.particles.data_portal import read_data_portal
from t3ssfast.io.particles.dynamo import read_dynamo, write_dynamo
from t3ssfast.io.particles.em_motive_list import read_em_motive_list, write_em_motive_list
from t3ssfast.io.particles.eman import is_eman_info, read_eman
from t3ssfast.io.particles.imod import read_imod, write_imod
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.plausible import check_plausible
from t3ssfast.io.particles.relion import read_relion, write_companions, write_picks, write_relion
from t3ssfast.io.particles.stopgap_writing import write_stopgap
from t3ssfast.io.particles.tables import read_csv
from t3ssfast.io.particles.text import read_coords, write_coords, write_csv
from t3ssfast.io.particles.xml_lists import read_xml
from t3ssfast.io.tomogram_names import match_names
from t3ssfast.tomogram import StrPath

__all__ = [
    "FORMATS",
    "READ_FORMATS",
    "WRITE_FORMATS",
    "export",
    "format_of",
    "load_all_candidates",
    "load_candidates",
]

_READERS: dict[str, Callable[[ParticleFile], list[Candidates]]] = {
    "relion5": read_relion,
    "relion4": read_relion,
    "stopgap": read_relion,
    "dynamo": read_dynamo,
    "imod": read_imod,
    "copick": read_copick,
    "csv": read_csv,
    "coords": read_coords,
    "cbox": read_cbox,
    "em": read_em_motive_list,
    "eman2": read_eman,
    "data-portal": read_data_portal,
    "xml": read_xml,
    "curation": read_curation,
}
_ONE_TOMOGRAM_WRITERS: dict[str, Callable[[Path, Candidates], None]] = {
    "imod": write_imod,
    "copick": write_copick,
    "coords": write_coords,
    "em": write_em_motive_list,
    "cmm": write_chimera_markers,
    "relion-picks": write_picks,
}
_WRITERS: dict[str, Callable[[Path, Sequence[Candidates]], None]] = {
    "dynamo": write_dynamo,
    "csv": write_csv,
    "stopgap": write_stopgap,
}
READ_FORMATS = tuple(_READERS)
WRITE_FORMATS = ("relion5", "relion4", *_WRITERS, *_ONE_TOMOGRAM_WRITERS, "chimerax")
# Formats that are written and read back, with the name and the voxel size of the tomogram.
FORMATS = tuple(format for format in READ_FORMATS if format in WRITE_FORMATS and format != "em")
# Formats with positions of a fixed unit.
_IN_ANGSTROM = {"copick": True, "eman2": False}
_TEXT_TABLES = ("csv", "coords")
_FORMAT_OF_SUFFIX = {".star": "relion5", ".tbl": "dynamo", ".mod": "imod", ".json": "copick", ".csv": "csv"}
_FORMAT_OF_SUFFIX |= dict.fromkeys((".txt", ".coords", ".xyz", ".pts"), "coords")
_FORMAT_OF_SUFFIX |= {".tsv": "csv", ".cbox": "cbox", ".em": "em", ".ndjson": "data-portal", ".xml": "xml"}
_FORMAT_OF_SUFFIX |= {".cxc": "chimerax", ".cmm": "cmm"}


def export(
    candidates: Candidates | Sequence[Candidates],
    path: StrPath,
    format: str = "relion5",
    *,
    tilt_series_pixel_size_angstrom: float | None = None,
    membrane_frame: bool = False,
    companions: bool = False,
    tomogram: StrPath | None = None,
    membrane: StrPath | None = None,
) -> list[Path]:
    """Write candidates in the format of another program, atomically.

    Parameters
    ----------
    candidates
        Candidates of one tomogram; for RELION, Dynamo, STOPGAP and csv also a sequence, one entry per
        tomogram.
    path
        File to write. Dynamo: must end in .tbl; a .doc file is written beside it. IMOD: a model if it ends in
        .mod, otherwise text points. copick: the folder of a run, or a file
        `Picks/{user}_{session}_{object}.json` in it. ChimeraX: a script that ends in .cxc; arrows are written
        beside it. RELION's picker ("relion-picks"): `annotations/{tomogram}_particles.star` in the folder of
        the picking job. ArtiaX reads "relion5", "dynamo" and "em".
    format
        "relion5", "relion4", "relion-picks", "dynamo", "stopgap", "imod", "copick", "csv", "coords", "em",
        "chimerax" or "cmm".
    tilt_series_pixel_size_angstrom
        Pixel size of the unbinned tilt series. Required for RELION 4; adds `data_optics` for RELION 5.
    membrane_frame
        RELION only: write the pose as rlnTomoSubtomogramRot/Tilt/Psi, with rlnAngleTilt and its prior at 90
        degrees, as RELION does for particles on surfaces, so that a refinement can be restrained to the
        membrane. Default: write the pose as rlnAngleRot/Tilt/Psi only.
    companions
        RELION 5 only: also write tomograms.star, optimisation_set.star, import.star and one coordinate file
        per tomogram in coordinates/. Requires `tilt_series_pixel_size_angstrom`.
    tomogram, membrane
        ChimeraX only: files that the script opens.

    Returns
    -------
    The paths written: `path`, then its companions.

    Raises
    ------
    ConfigError, InputError
        If the format is unknown, or required information is missing.
    OutputError
        If a file cannot be written.
    """
    sequence = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    names = [of_tomogram.tomogram_name for of_tomogram in sequence]
    if not sequence or len(set(names)) != len(names):
        raise InputError(f"candidates: the tomograms are {names}; give at least one, with different names.")
    _check_format(format, WRITE_FORMATS)
    target = Path(path)
    if format != "chimerax" and not tomogram is membrane is None:
        raise ConfigError(
            f"tomogram, membrane: the format is {format!r}; only ChimeraX scripts open volumes."
        )
    companion_paths: list[Path] = []
    if companions:
        if format != "relion5":
            raise ConfigError(f"companions: the format is {format!r}; only RELION 5 has companion files.")
        companion_paths = write_companions(target, sequence, tilt_series_pixel_size_angstrom)
    if format in (*_ONE_TOMOGRAM_WRITERS, "chimerax"):
        if len(sequence) > 1:
            n = len(sequence)
            raise ConfigError(f"candidates: {format} files hold one tomogram, and {n} were given; write {n}.")
        if format == "chimerax":
            companion_paths = write_chimerax(target, sequence[0], tomogram, membrane)
        else:
            _ONE_TOMOGRAM_WRITERS[format](target, sequence[0])
    elif format in _WRITERS:
        _WRITERS[format](target, sequence)
    else:
        write_relion(target, sequence, format, tilt_series_pixel_size_angstrom, membrane_frame)
    return [target, *companion_paths]


def _check_format(format: str, known: Sequence[str]) -> None:
    if format not in known:
        raise ConfigError(f"format: {format!r} is not among {', '.join(known)}; give one of these.")


def format_of(path: StrPath) -> str:
    """Return the format of a particle file by its suffix: "relion5" for .star; "copick" for a folder."""
    file = Path(path)
    if file.is_dir():
        return "copick"
    suffix = file.suffix.lower()
    if suffix not in _FORMAT_OF_SUFFIX:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise ConfigError(f"{display_path(path)}: unknown suffix (known are {known}); give the format.")
    return _FORMAT_OF_SUFFIX[suffix]


def load_all_candidates(
    path: StrPath,
    *,
    format: str | None = None,
    voxel_size_angstrom: float | None = None,
    tomogram_shape: tuple[int, int, int] | None = None,
    tomograms: StrPath | None = None,
    angstrom: bool | None = None,
    columns: ColumnsArgument | None = None,
    verdicts: bool = False,
) -> list[Candidates]:
    """Read the candidates of every tomogram in a file, one `Candidates` per tomogram.

    Other parameters and errors are those of `load_candidates`.

    Parameters
    ----------
    verdicts
        Keep all candidates of a curation file, with their labels, instead of the accepted ones alone.
    """
    tomograms_star = None if tomograms is None else Path(tomograms)
    named = None if columns is None else Columns.parse(columns)
    file = ParticleFile(Path(path), voxel_size_angstrom, tomogram_shape, tomograms_star, angstrom, named)
    if format is None:
        stat_path(path)
        format = format_of(path)
        if format == "copick" and not file.path.is_dir() and is_eman_info(file):
            format = "eman2"
        elif file.path.suffix.lower() in (".json", ".star") and file.path.is_file() and is_curation(file):
            format = "curation"
    _check_format(format, READ_FORMATS)
    if named is not None and format not in _TEXT_TABLES:
        raise ConfigError(
            f"columns: {file} has the format {format}, whose columns are known; leave them out."
        )
    in_angstrom = _IN_ANGSTROM.get(format)
    if format == "imod" and file.path.suffix.lower() == ".mod":
        in_angstrom = False
    if None not in (angstrom, in_angstrom) and angstrom != in_angstrom:
        unit = "Angstrom" if in_angstrom else "voxels"
        raise ConfigError(f"angstrom: {file} has the format {format}, whose unit is {unit}; leave it out.")
    found = _READERS[format](file)
    if not verdicts:
        # Of a curation, only what a person accepted is a particle.
        found = [accepted_only(of_tomogram) for of_tomogram in found]
    # A shape given for a file of several tomograms is that of the one that the caller chooses and checks.
    if tomograms is not None or (tomogram_shape is not None and len(found) == 1):
        check_plausible(found, display_path(path))
    return found


def load_candidates(
    path: StrPath,
    *,
    format: str | None = None,
    voxel_size_angstrom: float | None = None,
    tomogram_shape: tuple[int, int, int] | None = None,
    tomogram: str | None = None,
    tomograms: StrPath | None = None,
    angstrom: bool | None = None,
    columns: ColumnsArgument | None = None,
) -> Candidates:
    """Read the candidates of one tomogram, in any of `READ_FORMATS`.

    Parameters
    ----------
    path
        Particle file; for copick also the folder of a run.
    format
        One of `READ_FORMATS`: the formats that `export` writes, and "cbox" (crYOLO, TomoTwin), "em" (motive
        lists), "eman2", "data-portal" (.ndjson), "xml" (PyTom, DeepFinder) and "curation" (only what was
        accepted). None: by the suffix; variants of star, csv, text and JSON files are detected by their
        content.
    voxel_size_angstrom
        Voxel size that the returned positions refer to. Positions are converted if the file has a voxel size
        or is in Angstrom; otherwise they are taken as voxels of this size.
    tomogram_shape
        (z, y, x) shape of the tomogram in these voxels.
    tomogram
        Name of the tomogram, if the file has several.
    tomograms
        RELION tomograms.star with the sizes and pixel sizes of the tomograms.
    angstrom
        Whether the positions in the file are in Angstrom from the centre of the first voxel. None: as the
        format says.
    columns
        Columns of a csv file or of text points: their fields in order ("class,x,y,z"; "-" skips one), or
        pairs of a field and the name or number of its column ("x=2,y=3,z=4"). Fields are x, y, z, score, rot,
        tilt, psi, normal_x, normal_y, normal_z, class, kind, tomogram and voxel_size_angstrom.

    Returns
    -------
    Candidates
        Scores are 1 and normals are along +z if the file has none.

    Raises
    ------
    ReadError
        If the file is missing, invalid, or has several tomograms and `tomogram` is None.
    VoxelSizeError
        If neither the file nor the call gives the voxel size.
    ConfigError
        If an option is invalid, or contradicts the format.
    """
    found = load_all_candidates(
        path,
        format=format,
        voxel_size_angstrom=voxel_size_angstrom,
        tomogram_shape=tomogram_shape,
        tomograms=tomograms,
        angstrom=angstrom,
        columns=columns,
    )
    name = display_path(path)
    by_name = {of_tomogram.tomogram_name: of_tomogram for of_tomogram in found}
    listed = ", ".join(map(repr, list(by_name)[:5])) + (" ..." if len(by_name) > 5 else "")
    if tomogram is not None:
        match = match_names([tomogram], by_name).get(tomogram)
        if match is None:
            raise ReadError(f"{name}: no candidates of {tomogram!r} (it has {listed}); check the name.")
        if tomogram_shape is not None:
            check_plausible([by_name[match]], name)
        return by_name[match]
    if len(found) > 1:
        raise ReadError(f"{name}: candidates of {len(found)} tomograms ({listed}); give one as tomogram.")
    if not found:
        voxel_size = ParticleFile(Path(path), voxel_size_angstrom).resolve_voxel_size(None)
        return Candidates.empty(voxel_size, tomogram_shape)
    return found[0]
