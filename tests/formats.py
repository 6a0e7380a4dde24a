"""What the tests of formats of candidates share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import starfile

from t3ssfast.io.particles.poses import rotation_from_relion

NAMES = {
    "relion5": "a.star",
    "relion4": "a.star",
    "dynamo": "a.tbl",
    "imod": "a.mod",
    "copick": "run",
    "csv": "a.csv",
    "coords": "a.txt",
}
OPTIONS = {"relion4": {"tilt_series_pixel_size_angstrom": 1.7}}
WITHOUT_ROT = ("imod", "coords")
WITHOUT_SCORES = ("imod", "coords")


def rotation(candidates):
    """The rotations of candidates."""
    return rotation_from_relion(candidates.euler_zyz)


def assert_same(back, candidates, format):
    """Candidates that were written and read again are what they were, as far as the format holds it."""
    assert len(back) == len(candidates)
    np.testing.assert_allclose(back.centre_zyx, candidates.centre_zyx, atol=0.01)
    assert back.voxel_size_angstrom == pytest.approx(candidates.voxel_size_angstrom, rel=1e-6)
    if format == "coords":
        return
    cross = np.linalg.norm(np.cross(back.normal_zyx, candidates.normal_zyx), axis=1)
    dot = np.sum(back.normal_zyx * candidates.normal_zyx, axis=1)
    assert np.degrees(np.arctan2(cross, dot)).max(initial=0) < 0.01
    if format not in WITHOUT_ROT and len(back):
        assert np.degrees((rotation(back).inv() * rotation(candidates)).magnitude()).max() < 0.01
    if format not in WITHOUT_SCORES:
        np.testing.assert_allclose(back.score, candidates.score, atol=1e-6)


def star_of(path, columns):
    """Write a star file of particles with these columns."""
    starfile.write({"particles": pd.DataFrame(columns)}, path, overwrite=True)
