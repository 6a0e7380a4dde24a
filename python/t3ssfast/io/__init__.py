"""Tomograms from and to the disk: MRC (plain, .gz, .bz2) and OME-Zarr; atomic writing.

A header is checked against the size of its file before anything is mapped or allocated, so that a damaged
or hostile file costs one sentence instead of the machine's memory. A plain MRC file is memory-mapped and
never copied whole.
"""

from __future__ import annotations

from t3ssfast.io.atomic import atomic_path, remove_temporaries, results_folder
from t3ssfast.io.checksum import file_sha256
from t3ssfast.io.names import display_path, tomogram_name
from t3ssfast.io.volumes.header import READABLE_MODES
from t3ssfast.io.volumes.reading import Layout, layout, read, release_pages
from t3ssfast.io.volumes.voxel_size import PLACEHOLDER_VOXEL_SIZE_ANGSTROM
from t3ssfast.io.volumes.writing import write

__all__ = [
    "PLACEHOLDER_VOXEL_SIZE_ANGSTROM",
    "READABLE_MODES",
    "Layout",
    "atomic_path",
    "display_path",
    "file_sha256",
    "layout",
    "read",
    "release_pages",
    "remove_temporaries",
    "results_folder",
    "tomogram_name",
    "write",
]
