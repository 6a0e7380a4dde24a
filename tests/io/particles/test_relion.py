"""RELION files and companions, and files of Warp, M and PyTom."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import starfile
from scipy.spatial.transform import Rotation

from formats import EXPORT_OPTIONS, angles_between, assert_equal_candidates, write_particles_star
from t3ssfast.candidates import normal_from_euler_zyz
from t3ssfast.errors import ConfigError, ReadError, VoxelSizeError
from t3ssfast.io.particles import export, load_all_candidates, load_candidates
from t3ssfast.io.particles.poses import rotation_of
from t3ssfast.io.particles.relion import read_star


@pytest.mark.parametrize("format", ["relion5", "relion4"])
def test_round_trip_in_the_membrane_frame(tmp_path, make_candidates, format):
    candidates = make_candidates(30)
    export(candidates, tmp_path / "a.star", format, membrane_frame=True, **EXPORT_OPTIONS.get(format, {}))
    assert_equal_candidates(load_candidates(tmp_path / "a.star"), candidates, format)
    table = starfile.read(tmp_path / "a.star")["particles"]
    assert (table["rlnAngleTilt"] == 90).all()
    assert (table["rlnAngleTiltPrior"] == 90).all()


def test_relion5_positions_are_relative_to_the_middle(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.star", "relion5", tilt_series_pixel_size_angstrom=1.7)
    blocks = starfile.read(tmp_path / "a.star")
    table = blocks["particles"]
    for axis, column in enumerate("ZYX"):
        expected = (candidates.centre_zyx[:, axis] - candidates.tomogram_shape[axis] / 2) * 13.6
        np.testing.assert_allclose(table[f"rlnCenteredCoordinate{column}Angst"], expected, atol=1e-3)
    nz, ny, nx = candidates.normal_zyx.T
    np.testing.assert_allclose(table["rlnAngleTilt"], np.degrees(np.arccos(nz)), atol=1e-2)
    psi = np.degrees(np.arctan2(ny, -nx))
    np.testing.assert_allclose(table["rlnAnglePsi"][2:], psi[2:], atol=1e-3)
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].iloc[0] == 1.7
    export(candidates, tmp_path / "b.star", "relion5")
    assert "optics" not in starfile.read(tmp_path / "b.star")


def test_relion4_positions_are_unbinned_voxels(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.star", "relion4", tilt_series_pixel_size_angstrom=1.7)
    table = starfile.read(tmp_path / "a.star")["particles"]
    np.testing.assert_allclose(table["rlnCoordinateX"], candidates.centre_zyx[:, 2] * 8, rtol=1e-6)
    found = load_candidates(tmp_path / "a.star", voxel_size_angstrom=6.8)
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx * 2, rtol=1e-5)


def test_subtomogram_frames_and_origins_are_composed(tmp_path):
    rng = np.random.default_rng(0)
    frame, own = rng.uniform(0, 180, (2, 6, 3))
    shift = rng.normal(0, 20, (6, 3))
    position = rng.uniform(100, 900, (6, 3))
    data = {"rlnTomoName": ["001"] * 6, "rlnPixelSize": [2.0] * 6}
    for i, axis in enumerate("XYZ"):
        data |= {f"rlnCoordinate{axis}": position[:, i], f"rlnOrigin{axis}Angst": shift[:, i]}
    for i, angle in enumerate(("Rot", "Tilt", "Psi")):
        data |= {f"rlnTomoSubtomogram{angle}": frame[:, i], f"rlnAngle{angle}": own[:, i]}
    starfile.write({"particles": pd.DataFrame(data)}, tmp_path / "a.star")
    found = load_candidates(tmp_path / "a.star")
    outer, inner = (Rotation.from_euler("ZYZ", a, degrees=True).inv() for a in (frame, own))
    expected = position * 2.0 - outer.apply(shift)
    np.testing.assert_allclose(found.centre_zyx[:, ::-1] * 2.0, expected, atol=1e-2)
    assert angles_between(rotation_of(found), outer * inner).max() < 0.01
    assert found.tomogram_name == "001"


def test_relion5_particles_with_tomograms_star(data, tmp_path):
    with pytest.raises(VoxelSizeError):
        load_all_candidates(data / "relion5_particles.star")
    with pytest.raises(ReadError, match="middle"):
        load_all_candidates(data / "relion5_particles.star", voxel_size_angstrom=10.52)
    found = load_all_candidates(data / "relion5_particles.star", tomograms=data / "relion5_tomograms.star")
    assert [(one.tomogram_name, len(one)) for one in found] == [("TS_01", 3), ("TS_02", 2)]
    assert found[0].voxel_size_angstrom == 10.52
    assert found[0].tomogram_shape == (44, 136, 84)
    expected = np.array([11.16, 765.48005, -176.94]) / 10.52 + np.array([44, 136, 84]) / 2
    np.testing.assert_allclose(found[0].centre_zyx[0], expected, atol=1e-3)
    with pytest.raises(ReadError, match="neither in its folder"):
        load_all_candidates(data / "relion5_optimisation_set.star")
    for name, folder in (("particles", "Picks/job_picks"), ("tomograms", "Tomograms/job_tomo")):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(data / f"relion5_{name}.star", tmp_path / folder / f"{name}.star")
    shutil.copy(data / "relion5_optimisation_set.star", tmp_path)
    again = load_all_candidates(tmp_path / "relion5_optimisation_set.star")
    np.testing.assert_array_equal(again[1].centre_zyx, found[1].centre_zyx)


def test_files_of_relion_3_and_warp(data):
    warp = load_candidates(data / "relion_one_loop.star")
    assert len(warp) == 16
    assert warp.voxel_size_angstrom == pytest.approx(5.0)
    np.testing.assert_allclose(warp.centre_zyx[0], [964.5, 1084.5, 1572.444], rtol=1e-6)
    binned = load_candidates(data / "relion_one_loop.star", voxel_size_angstrom=15)
    np.testing.assert_allclose(binned.centre_zyx * 3, warp.centre_zyx, rtol=1e-6)
    found = load_all_candidates(data / "relion31.star")
    assert [one.tomogram_name for one in found] == ["0001_sum.mrc", "0002_sum.mrc"]
    assert found[0].centre_zyx[0, 0] == pytest.approx(-51.5227)


def test_particles_of_m_and_pytom(tmp_path):
    at = dict(zip("XYZ", ([100.0, 50.0], [200.0, 60.0], [300.0, 70.0]), strict=True))
    for suffix in ("", "1"):
        columns = {f"wrpCoordinate{a}{suffix}": v for a, v in at.items()} | {
            "wrpSourceName": ["a.tomostar"] * 2
        }
        columns |= {f"wrpAngle{n}{suffix}": [10.0, 20.0] for n in ("Rot", "Tilt", "Psi")}
        write_particles_star(tmp_path / "m.star", columns)
        with pytest.raises(VoxelSizeError):
            load_candidates(tmp_path / "m.star")
        found = load_candidates(tmp_path / "m.star", voxel_size_angstrom=10)
        np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10], [7, 6, 5]])
        np.testing.assert_allclose(found.euler_zyz[1], [20, 20, 20], atol=1e-3)
    columns = {f"rlnCoordinate{a}": v for a, v in at.items()}
    write_particles_star(
        tmp_path / "p.star", columns | {"rlnDetectorPixelSize": [13.8] * 2, "rlnMicrographName": ["0042"] * 2}
    )
    found = load_candidates(tmp_path / "p.star")
    assert (found.voxel_size_angstrom, found.tomogram_name) == (13.8, "0042")
    np.testing.assert_allclose(found.centre_zyx[0], [300, 200, 100])


def test_round_trip_through_companions(tmp_path, make_candidates, monkeypatch):
    several = [make_candidates(3, 1, tomogram_name="01"), make_candidates(2, 2, tomogram_name="TS 2/b")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Import").mkdir()
    files = export(several, "Import/particles.star", tilt_series_pixel_size_angstrom=1.7, companions=True)
    assert all(file.is_file() for file in files)
    names = {str(file) for file in files}
    assert {"Import/tomograms.star", "Import/optimisation_set.star", "Import/import.star"} < names
    tomograms = read_star(tmp_path / "Import" / "tomograms.star")["global"]
    assert list(tomograms["rlnTomoTomogramBinning"]) == [8, 8]
    assert list(tomograms["rlnTomoSizeZ"]) == [301 * 8] * 2
    index = read_star(tmp_path / "Import" / "import.star")["particles"]
    assert list(index) == ["rlnTomoName", "rlnTomoImportParticleFile"]
    for start, options in (
        ("optimisation_set.star", {}),
        ("import.star", {"voxel_size_angstrom": 13.6}),
    ):
        found = load_all_candidates(tmp_path / "Import" / start, **options)
        assert [one.tomogram_name for one in found] == ["01", "TS 2/b"]
        for one, expected in zip(found, several, strict=True):
            np.testing.assert_allclose(one.centre_zyx, expected.centre_zyx, atol=0.01)
            assert angles_between(rotation_of(one), rotation_of(expected)).max() < 0.01


def test_companions_require_pixel_size_and_shape(tmp_path, make_candidates):
    with pytest.raises(ConfigError, match="tilt-series-pixel-size"):
        export(make_candidates(2), tmp_path / "a.star", companions=True)
    options = {"tilt_series_pixel_size_angstrom": 1.7, "companions": True}
    with pytest.raises(ConfigError, match="tomogram_shape"):
        export(make_candidates(2, tomogram_shape=None), tmp_path / "a.star", **options)
    with pytest.raises(ConfigError, match="same name"):
        export(make_candidates(2), tmp_path / "tomograms.star", **options)
    with pytest.raises(ConfigError, match="companions"):
        export(make_candidates(2), tmp_path / "a.star", "relion4", **options)
    with pytest.raises(ConfigError, match="larger than the voxels"):
        export(make_candidates(2), tmp_path / "a.star", "relion4", tilt_series_pixel_size_angstrom=20)
    assert list(tmp_path.iterdir()) == []


def test_invalid_import_lists_raise(tmp_path):
    write_particles_star(tmp_path / "a.star", {"rlnTomoName": ["x"], "rlnTomoImportParticleFile": ["a.star"]})
    with pytest.raises(ReadError, match="another list"):
        load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)
    write_particles_star(
        tmp_path / "b.star", {f"rlnCoordinate{a}": [1.0] for a in "XYZ"} | {"rlnTomoName": ["y"]}
    )
    write_particles_star(tmp_path / "a.star", {"rlnTomoName": ["x"], "rlnTomoImportParticleFile": ["b.star"]})
    with pytest.raises(ReadError, match="'y'"):
        load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)


POSITION = {"rlnCoordinateX": [100.0], "rlnCoordinateY": [200.0], "rlnCoordinateZ": [300.0]}
CENTRED = {f"rlnCenteredCoordinate{axis}Angst": [0.0] for axis in "XYZ"}
ORIGIN = {"rlnOriginX": [2.0], "rlnOriginY": [-4.0], "rlnOriginZ": [6.0]}


def test_origins_in_pixels(tmp_path):
    write_particles_star(tmp_path / "a.star", POSITION | ORIGIN | {"rlnPixelSize": [5.0]})
    found = load_candidates(tmp_path / "a.star", voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.centre_zyx, [[147, 102, 49]])
    # Without a pixel size, both are in voxels of the caller.
    write_particles_star(tmp_path / "b.star", POSITION | ORIGIN)
    found = load_candidates(tmp_path / "b.star", voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.centre_zyx, [[294, 204, 98]])
    # Beside positions in Angstrom they have no unit.
    write_particles_star(tmp_path / "c.star", CENTRED | ORIGIN)
    with pytest.raises(ReadError, match="rlnOrigin"):
        load_candidates(tmp_path / "c.star", voxel_size_angstrom=10.0, tomogram_shape=(10, 20, 30))


def test_origins_in_angstrom_take_precedence_and_missing_ones_are_0(tmp_path):
    columns = POSITION | ORIGIN | {"rlnPixelSize": [5.0], "rlnOriginZAngst": [10.0]}
    write_particles_star(tmp_path / "a.star", columns)
    found = load_candidates(tmp_path / "a.star", voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.centre_zyx, [[149, 100, 50]])


def test_missing_angles_are_0(tmp_path):
    write_particles_star(tmp_path / "a.star", POSITION | {"rlnAngleTilt": [90.0], "rlnAnglePsi": [30.0]})
    found = load_candidates(tmp_path / "a.star", voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.normal_zyx, normal_from_euler_zyz([[0, 90, 30]]), atol=1e-6)


def test_coordinates_that_the_caller_knows_to_be_in_angstrom(tmp_path):
    write_particles_star(tmp_path / "a.star", POSITION | {"rlnPixelSize": [5.0]})
    found = load_candidates(tmp_path / "a.star", voxel_size_angstrom=10.0, angstrom=True)
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10]])
