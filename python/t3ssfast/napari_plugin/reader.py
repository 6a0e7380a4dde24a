"""Reader of napari: folders of results, candidates in every format, tomograms with their voxel size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from t3ssfast.candidates import Candidates
from t3ssfast.curation.results import CANDIDATES_FILE, Results, find_results, open_tomogram_of
from t3ssfast.errors import T3Error, VoxelSizeError
from t3ssfast.io import display_path, read
from t3ssfast.io.files import VOLUME_SUFFIXES
from t3ssfast.io.particles import load_all_candidates
from t3ssfast.io.particles.curation import VERSION_COLUMN, is_curation, load_all_curations
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.napari_plugin.layers import (
    AXES_LAYER,
    CANDIDATES_LAYER,
    LayerData,
    axes_layer,
    candidates_layer,
    image_layer,
    membrane_layer,
)

__all__ = ["get_reader", "layers_of_results", "read_candidates", "read_results", "read_tomogram"]

PARTICLE_SUFFIXES = {".star", ".csv", ".tsv", ".tbl", ".mod", ".json", ".ndjson", ".cbox", ".xml"}
PARTICLE_SUFFIXES |= {".coords", ".xyz", ".pts", ".txt"}
COMPRESSED_SUFFIXES = {".gz", ".bz2"}
ZARR_FILES = (".zattrs", ".zgroup", "zarr.json")
# Where nothing states the voxel size, a voxel is shown as 1 nm.
UNKNOWN_VOXEL_SIZE_ANGSTROM = 10.0


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the function that reads a path, or None where the path is nothing of t3ssfast."""
    if not isinstance(path, (str, os.PathLike)):
        # A stack of files is no tomogram.
        return get_reader(path[0]) if len(path) == 1 else None
    file = Path(path)
    reader: Callable[[Path], list[LayerData]]
    if file.is_dir():
        if any((file / name).is_file() for name in ZARR_FILES):
            reader = read_tomogram
        elif (file / CANDIDATES_FILE).is_file() or any(file.glob(f"*/{CANDIDATES_FILE}")):
            reader = read_results
        elif (file / "Picks").is_dir():
            reader = read_candidates
        else:
            return None
    else:
        suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
        if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
            suffixes.pop()
        suffix = suffixes[-1] if suffixes else ""
        if suffix in PARTICLE_SUFFIXES:
            reader = read_candidates
        elif suffix in VOLUME_SUFFIXES:
            reader = read_tomogram
        else:
            return None
    return partial(_read_one, reader)


def _read_one(reader: Callable[[Path], list[LayerData]], path: str | Sequence[str]) -> list[LayerData]:
    """Read the path that napari gives, which may be a list of one."""
    return reader(Path(path if isinstance(path, (str, os.PathLike)) else path[0]))


def read_results(path: Path) -> list[LayerData]:
    """Read a folder of results; of a folder with several, the first, whose layers name the others.

    Raises
    ------
    ReadError, InputError
        If there are no results, or they cannot be read.
    """
    found = find_results(path)
    return layers_of_results(found[0], found)


def layers_of_results(results: Results, all_results: Sequence[Results]) -> list[LayerData]:
    """Return the layers of one tomogram: image, membrane, candidates and their axes.

    A tomogram or a membrane that cannot be opened is left out with a warning. The candidates' metadata hold
    `all_results`, through which the widget Curate steps.
    """
    layers: list[LayerData] = []
    try:
        tomogram = open_tomogram_of(results)
        layers.append(image_layer(tomogram, contrast_sign=results.contrast_sign))
        mask = results.read_membrane(tomogram)
        if mask is not None:
            layers.append(membrane_layer(mask, tomogram.voxel_size_angstrom))
    except T3Error as error:
        warnings.warn(str(error), stacklevel=2)
    candidates = results.candidates
    layers.append(candidates_layer(candidates, results=list(all_results), folder=results.folder))
    layers.append(axes_layer(candidates))
    return layers


def read_candidates(path: Path) -> list[LayerData]:
    """Read candidates in any format, and curation files with the verdicts; two layers for each tomogram.

    Raises
    ------
    ReadError
        If the file cannot be read.
    """
    unknown = False
    try:
        found = _load(path, None)
    except VoxelSizeError:
        found, unknown = _load(path, UNKNOWN_VOXEL_SIZE_ANGSTROM), True
    if unknown:
        _warn_of_unknown_size(path)
    layers: list[LayerData] = []
    for candidates in found:
        ending = f" of {candidates.tomogram_name}" if len(found) > 1 else ""
        layers.append(candidates_layer(candidates, CANDIDATES_LAYER + ending))
        layers.append(axes_layer(candidates, AXES_LAYER + ending))
    return layers


def _load(path: Path, voxel_size_angstrom: float | None) -> list[Candidates]:
    load = load_all_curations if _holds_verdicts(path) else load_all_candidates
    return load(path, voxel_size_angstrom=voxel_size_angstrom)


def _holds_verdicts(path: Path) -> bool:
    """Return whether a file is a curation file, of which `load_all_candidates` gives the accepted only."""
    if not path.is_file():
        return False
    file, suffix = ParticleFile(path), path.suffix.lower()
    if suffix == ".csv":
        return VERSION_COLUMN in file.read_text().split("\n", 1)[0]
    return suffix in (".json", ".star") and is_curation(file)


def read_tomogram(path: Path) -> list[LayerData]:
    """Read a tomogram; without a voxel size in the file, a voxel is shown as 1 nm, with a warning.

    Raises
    ------
    ReadError
        If the file cannot be read.
    """
    try:
        tomogram = read(path)
    except VoxelSizeError:
        tomogram = read(path, voxel_size_angstrom=UNKNOWN_VOXEL_SIZE_ANGSTROM)
        _warn_of_unknown_size(path)
    return [image_layer(tomogram, path=path)]


def _warn_of_unknown_size(path: Path) -> None:
    warnings.warn(
        f"{display_path(path)}: the voxel size is unknown, so a voxel is shown as 1 nm; set the scale of the "
        "layer to the voxel size in nm.",
        stacklevel=3,
    )
