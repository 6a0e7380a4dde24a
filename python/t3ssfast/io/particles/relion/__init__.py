"""RELION star files: 5 (positions from the middle, in Angstrom), 4 and 3 (unbinned voxels); Warp's and M's.

Positions. A voxel centre x (0-based) of a tomogram of size N and voxel size v is at x * v from the centre
of the first voxel; RELION 5 writes (x - N / 2) * v, RELION 4 writes x * v / p with p the pixel size of the
unbinned tilt series. Neither depends on how the tomogram was binned.

Besides RELION's own blocks a file carries `data_t3ssfast` (size and voxel size of each tomogram) and
`data_t3ssfast_kinds`, which RELION ignores; with them a file can be read back on its own.
"""

from __future__ import annotations

from t3ssfast.io.particles.relion.columns import ANGLES
from t3ssfast.io.particles.relion.companions import write_companions
from t3ssfast.io.particles.relion.reading import read_relion
from t3ssfast.io.particles.relion.tables import read_star, star_name
from t3ssfast.io.particles.relion.writing import write_relion4, write_relion5

__all__ = [
    "ANGLES",
    "read_relion",
    "read_star",
    "star_name",
    "write_companions",
    "write_relion4",
    "write_relion5",
]
