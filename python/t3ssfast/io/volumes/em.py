"""Reading of EM files (.em) of TOM, AV3, PyTom, Dynamo and novaSTA with the package emfile."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import ReadError
from t3ssfast.io.files import display_path, read_error
from t3ssfast.io.volumes.packages import missing_package

__all__ = ["is_em", "read_em_array"]

HEADER_BYTES = 512
# First byte of the header: machines of this byte order (tom_emread in the TOM toolbox); others: big-endian.
LITTLE_ENDIAN_MACHINES = (1, 2, 4, 6)
MACHINES = range(7)
BYTES_PER_VALUE = {1: 1, 2: 2, 4: 4, 5: 4, 9: 8}


def is_em(header: bytes, file_bytes: int) -> bool:
    """Return whether a file of this size with these first bytes is an EM file; they have no signature."""
    if len(header) < 16 or header[0] not in MACHINES or header[3] not in BYTES_PER_VALUE:
        return False
    return any(
        HEADER_BYTES + math.prod(struct.unpack_from(f"{order}3i", header, 4)) * BYTES_PER_VALUE[header[3]]
        == file_bytes
        for order in "<>"
    )


def read_em_array(path: Path) -> npt.NDArray[Any]:
    """Return the (z, y, x) array of an EM file, memory-mapped."""
    name = display_path(path)
    try:
        with open(path, "rb") as file:
            header = file.read(16)
        size = os.path.getsize(path)
    except OSError as error:
        raise read_error(path, error) from error
    if not is_em(header, size):
        raise ReadError(f"{name}: not an EM file, or truncated; check the file.")
    if header[0] not in LITTLE_ENDIAN_MACHINES:
        raise ReadError(f"{name}: the EM file is of a big-endian machine; convert it to MRC.")
    try:
        import emfile
    except ImportError as error:
        raise missing_package(name, "emfile", "formats") from error
    _, array = emfile.read(str(path), mmap=True)
    return np.asanyarray(array)
