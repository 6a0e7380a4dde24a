"""Tomograms on disk: MRC (plain, .gz, .bz2), OME-Zarr, TIFF, EM and HDF5; atomic writing of results.

Every header is checked against the size of its file before data are mapped or allocated, so a damaged or
malicious file raises `ReadError` instead of exhausting the memory.
"""

from __future__ import annotations

from t3ssfast.io.atomic import atomic_path, remove_temporaries, results_folder
from t3ssfast.io.files import display_path, file_sha256, tomogram_name
from t3ssfast.io.volumes.header import READABLE_MODES, SignSource
from t3ssfast.io.volumes.masks import read_mask
from t3ssfast.io.volumes.reading import VolumeLayout, looks_unsigned, read, release_pages, volume_layout
from t3ssfast.io.volumes.writing import write

__all__ = [
    "READABLE_MODES",
    "SignSource",
    "VolumeLayout",
    "atomic_path",
    "display_path",
    "file_sha256",
    "looks_unsigned",
    "read",
    "read_mask",
    "release_pages",
    "remove_temporaries",
    "results_folder",
    "tomogram_name",
    "volume_layout",
    "write",
]
