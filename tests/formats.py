"""Helpers of the tests of particle formats."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import starfile

from t3ssfast.io.particles.poses import rotation_of

FILE_NAMES = {
    "relion5": "a.star",
    "relion4": "a.star",
    "dynamo": "a.tbl",
    "imod": "a.mod",
    "copick": "run",
    "csv": "a.csv",
    "coords": "a.txt",
    "stopgap": "a.star",
}
EXPORT_OPTIONS = {"relion4": {"tilt_series_pixel_size_angstrom": 1.7}}
WITHOUT_ROT = ("imod", "coords")
WITHOUT_SCORES = ("imod", "coords")


def angles_between(rotations, others):
    """Return the angles between rotations, in degrees."""
    return np.degrees((rotations.inv() * others).magnitude())


def assert_equal_candidates(found, expected, format):
    """Check candidates after a round trip, except for what the format does not hold."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.centre_zyx, expected.centre_zyx, atol=0.01)
    assert found.voxel_size_angstrom == pytest.approx(expected.voxel_size_angstrom, rel=1e-6)
    if format == "coords":
        return
    cross = np.linalg.norm(np.cross(found.normal_zyx, expected.normal_zyx), axis=1)
    dot = np.sum(found.normal_zyx * expected.normal_zyx, axis=1)
    assert np.degrees(np.arctan2(cross, dot)).max(initial=0) < 0.01
    if format not in WITHOUT_ROT and len(found):
        assert angles_between(rotation_of(found), rotation_of(expected)).max() < 0.01
    if format not in WITHOUT_SCORES:
        np.testing.assert_allclose(found.score, expected.score, atol=1e-6)


def write_particles_star(path, columns):
    """Write a star file with the given columns in the block `particles`."""
    starfile.write({"particles": pd.DataFrame(columns)}, path, overwrite=True)
