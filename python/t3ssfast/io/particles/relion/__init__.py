"""RELION 3 to 5 star files of particles, and those of Warp, M and PyTom.

For a 0-based voxel position x in a tomogram of N voxels of size v, RELION 5 stores (x - N / 2) * v in
Angstrom, and RELION 4 stores x * v / p in pixels of the unbinned tilt series, of size p. Both are independent
of the binning.

Besides RELION's blocks a file has `data_t3ssfast` (shape and voxel size of each tomogram) and
`data_t3ssfast_kinds` (kind of particle per class number). RELION ignores them; with them a file can be read
without other files.
"""

from __future__ import annotations

from t3ssfast.io.particles.relion.columns import ANGLES
from t3ssfast.io.particles.relion.reading import read_relion
from t3ssfast.io.particles.relion.star import read_star, star_name, write_star
from t3ssfast.io.particles.relion.writing import write_companions, write_picks, write_relion

__all__ = [
    "ANGLES",
    "read_relion",
    "read_star",
    "star_name",
    "write_companions",
    "write_picks",
    "write_relion",
    "write_star",
]
