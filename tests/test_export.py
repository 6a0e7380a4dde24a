"""Every format there and back, the conventions as other programs see them, and files that are none."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from importlib import import_module

import dynamotable
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st
from imodmodel.models import ImodModel
from scipy.spatial.transform import Rotation

from t3ssfast.errors import ConfigError, InputError, OutputError, ReadError, T3Error, VoxelSizeError
from t3ssfast.export import FORMATS, export, load_all_candidates, load_candidates, save_results
from t3ssfast.export.poses import dynamo_from_relion, normal_and_rot, relion_from_dynamo, rotation_from_relion
from t3ssfast.export.relion import read_star
from t3ssfast.types import Candidates, normal_from_euler_zyz

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
    return rotation_from_relion(candidates.euler_zyz)


def assert_same(back, candidates, format):
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


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path, make_candidates, format):
    candidates = make_candidates(30)
    export(candidates, tmp_path / NAMES[format], format, **OPTIONS.get(format, {}))
    back = load_candidates(tmp_path / NAMES[format])
    assert_same(back, candidates, format)
    assert back.tomogram_name == "TS_007"
    assert list(back.kind) == ["t3ss"] * 30


@pytest.mark.parametrize("format", ["relion5", "relion4"])
def test_round_trip_in_the_frame_of_the_membrane(tmp_path, make_candidates, format):
    candidates = make_candidates(30)
    export(candidates, tmp_path / "a.star", format, membrane_frame=True, **OPTIONS.get(format, {}))
    assert_same(load_candidates(tmp_path / "a.star"), candidates, format)
    table = starfile.read(tmp_path / "a.star")["particles"]
    assert (table["rlnAngleTilt"] == 90).all()
    assert (table["rlnAngleTiltPrior"] == 90).all()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.floats(-50, 2000, width=32)] * 3, *[st.floats(-180, 180, width=32)] * 3),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(FORMATS),
    st.floats(2, 50, width=16),
)
def test_round_trip_of_anything(tmp_path_factory, rows, format, voxel_size):
    rows = np.array(rows)
    candidates = Candidates(
        rows[:, :3],
        np.linspace(1, 0, len(rows)),
        normal_from_euler_zyz(rows[:, 3:]),
        voxel_size,
        tomogram_shape=(300, 400, 500),
        rot_degrees=rows[:, 3],
    )
    path = tmp_path_factory.mktemp("round") / NAMES[format]
    export(candidates, path, format, **OPTIONS.get(format, {}))
    assert_same(load_candidates(path), candidates, format)


@pytest.mark.parametrize("format", FORMATS)
def test_no_candidates_are_written_and_read(tmp_path, make_candidates, format):
    export(make_candidates(0), tmp_path / NAMES[format], format, **OPTIONS.get(format, {}))
    back = load_candidates(tmp_path / NAMES[format], voxel_size_angstrom=13.6)
    assert len(back) == 0
    assert back.voxel_size_angstrom == pytest.approx(13.6)


@pytest.mark.parametrize(
    "name", ["0007", "TS 01", "data_01", "loop_", "a#b", "ünïcode", "1e5", "nan", "007.10"]
)
@pytest.mark.parametrize("format", ["relion5", "dynamo", "imod", "copick", "csv", "coords"])
def test_names_survive(tmp_path, make_candidates, name, format):
    candidates = make_candidates(3, tomogram_name=name)
    export(candidates, tmp_path / NAMES[format], format)
    assert load_candidates(tmp_path / NAMES[format]).tomogram_name == name


@pytest.mark.parametrize(
    "name", ["a'b", 'a"b', "a\nb", "a\tb", "../../x", "'; --", "a\0b", "data_\n\nloop_", " "]
)
@pytest.mark.parametrize("format", ["relion5", "dynamo", "imod", "copick", "csv", "coords"])
def test_hostile_names_do_no_harm(tmp_path, make_candidates, name, format):
    candidates = make_candidates(3, tomogram_name=name, kind=np.array([name] * 3))
    folder = tmp_path / "out"
    folder.mkdir()
    export(candidates, folder / NAMES[format], format)
    back = load_all_candidates(folder / NAMES[format])
    assert [len(some) for some in back] == [3]
    np.testing.assert_allclose(back[0].centre_zyx, candidates.centre_zyx, atol=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_kinds_survive_where_there_is_a_place(tmp_path, make_candidates):
    kinds = np.array(["flagellar_motor", "t3ss"] * 5)
    candidates = make_candidates(10, kind=kinds)
    for format in ("relion5", "imod", "csv"):
        export(candidates, tmp_path / NAMES[format], format)
        back = load_candidates(tmp_path / NAMES[format])
        assert_same(back, candidates, format)
        assert list(back.kind) == list(kinds)
    export(candidates, tmp_path / "run", "copick")
    names = {p.name for p in (tmp_path / "run" / "Picks").iterdir()}
    assert names == {"t3ssfast_1_t3ss.json", "t3ssfast_1_flagellar-motor.json"}
    assert_same(load_candidates(tmp_path / "run"), candidates, "copick")


@pytest.mark.parametrize("format", ["relion5", "relion4", "dynamo", "csv"])
def test_several_tomograms_in_a_file(tmp_path, make_candidates, format):
    several = [
        make_candidates(5, 1, tomogram_name="01"),
        make_candidates(0, 2, tomogram_name="1"),
        make_candidates(4, 3, tomogram_name="2", voxel_size_angstrom=10.0, tomogram_shape=(50, 60, 70)),
    ]
    export(several, tmp_path / NAMES[format], format, **OPTIONS.get(format, {}))
    back = {some.tomogram_name: some for some in load_all_candidates(tmp_path / NAMES[format])}
    for some in several:
        if len(some):
            assert_same(back[some.tomogram_name], some, format)
            assert_same(load_candidates(tmp_path / NAMES[format], tomogram=some.tomogram_name), some, format)
    with pytest.raises(ReadError, match="name one"):
        load_candidates(tmp_path / NAMES[format])
    with pytest.raises(ReadError, match="no candidates of"):
        load_candidates(tmp_path / NAMES[format], tomogram="7")


@pytest.mark.parametrize("format", ["imod", "copick", "coords"])
def test_formats_of_one_tomogram_say_so(tmp_path, make_candidates, format):
    several = [make_candidates(2, tomogram_name=name) for name in "ab"]
    with pytest.raises(ConfigError, match="2 were given"):
        export(several, tmp_path / NAMES[format], format)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- conventions


def test_relion5_positions_are_from_the_middle(tmp_path, make_candidates):
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
    back = load_candidates(tmp_path / "a.star", voxel_size_angstrom=6.8)
    np.testing.assert_allclose(back.centre_zyx, candidates.centre_zyx * 2, rtol=1e-5)


def test_relion_frames_and_origins_are_composed(tmp_path):
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
    back = load_candidates(tmp_path / "a.star")
    outer, inner = (Rotation.from_euler("ZYZ", a, degrees=True).inv() for a in (frame, own))
    expected = position * 2.0 - outer.apply(shift)
    np.testing.assert_allclose(back.centre_zyx[:, ::-1] * 2.0, expected, atol=1e-2)
    assert np.degrees((rotation(back).inv() * (outer * inner)).magnitude()).max() < 0.01
    assert back.tomogram_name == "001"


def test_dynamo_columns_and_angles(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.tbl", "dynamo")
    columns = np.loadtxt(tmp_path / "a.tbl").T
    np.testing.assert_array_equal(columns[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(columns[1], 1)
    np.testing.assert_allclose(columns[23:26].T[:, ::-1], candidates.centre_zyx, rtol=1e-6)
    np.testing.assert_allclose(columns[9], candidates.score, rtol=1e-6)
    np.testing.assert_array_equal(columns[19], 1)
    np.testing.assert_array_equal(columns[35], 13.6)
    assert (tmp_path / "a.doc").read_text() == "1 TS_007\n"
    assert list(dynamotable.read(tmp_path / "a.tbl")["tomo"]) == [1] * 4
    with pytest.raises(ConfigError, match=r"\.tbl"):
        export(candidates, tmp_path / "a.txt", "dynamo")


def test_dynamo_and_relion_angles_of_one_reconstruction():
    # A pair that gave identical reconstructions in the two programs (tests of the eulerangles package).
    dynamo, relion = [-47.2730, 1.1777, -132.3000], [137.7000, 1.1777, 42.7270]
    np.testing.assert_allclose(relion_from_dynamo([dynamo]), [relion], atol=1e-4)
    np.testing.assert_allclose(dynamo_from_relion([relion]), [dynamo], atol=1e-4)
    clockwise = Rotation.from_euler("zxz", dynamo, degrees=True).inv()
    assert (clockwise.inv() * rotation_from_relion([relion])).magnitude()[0] < 1e-5


def test_normal_and_rot_hold_the_whole_rotation():
    rotations = Rotation.random(200, random_state=0)
    normal, rot = normal_and_rot(rotations)
    candidates = Candidates(np.zeros((200, 3)), np.ones(200), normal, 10.0, rot_degrees=rot)
    assert np.degrees((rotation(candidates).inv() * rotations).magnitude()).max() < 0.01


def test_imod_models_as_imod_counts(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.mod", "imod")
    model = ImodModel.from_file(tmp_path / "a.mod")
    assert [item.header.name for item in model.objects] == ["t3ss", "normals"]
    expected = candidates.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0]
    np.testing.assert_allclose(model.objects[0].contours[0].points, expected, rtol=1e-6)
    assert model.header.pixelsize == pytest.approx(1.36)
    assert (model.header.units, model.header.xmax) == (-9, 1023)
    assert int(model.header.flags) == 1 << 10


def test_copick_files_and_names(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "TS_007", "copick")
    content = json.loads((tmp_path / "TS_007" / "Picks" / "t3ssfast_1_t3ss.json").read_text())
    assert content["run_name"] == "TS_007"
    assert content["points"][0]["location"]["x"] == pytest.approx(candidates.centre_zyx[0, 2] * 13.6)
    matrix = np.array(content["points"][3]["transformation_"])
    np.testing.assert_allclose(matrix[:3, 2], candidates.normal_zyx[3, ::-1], atol=1e-5)
    export(candidates, tmp_path / "me_2_needle.json", "copick")
    assert load_candidates(tmp_path / "me_2_needle.json").kind[0] == "needle"
    with pytest.raises(ConfigError, match="underscores"):
        export(candidates, tmp_path / "my_needle_complex_1.json", "copick")


def test_csv_columns(tmp_path, make_candidates):
    export(make_candidates(2), tmp_path / "a.csv", "csv")
    header = (tmp_path / "a.csv").read_text().split("\n")[0]
    assert header.startswith("z,y,x,score,normal_z,normal_y,normal_x,rot,tilt,psi")


def test_the_same_candidates_give_the_same_bytes(tmp_path, make_candidates):
    for format in ("relion5", "dynamo", "imod", "csv", "coords"):
        export(make_candidates(5), tmp_path / NAMES[format], format)
        first = (tmp_path / NAMES[format]).read_bytes()
        time.sleep(0.01)
        export(make_candidates(5), tmp_path / NAMES[format], format)
        assert (tmp_path / NAMES[format]).read_bytes() == first


@pytest.mark.parametrize("format", FORMATS)
def test_positions_move_to_another_binning(tmp_path, make_candidates, format):
    candidates = make_candidates(5)
    export(candidates, tmp_path / NAMES[format], format, **OPTIONS.get(format, {}))
    back = load_candidates(
        tmp_path / NAMES[format], voxel_size_angstrom=6.8, tomogram_shape=(602, 2880, 2046)
    )
    np.testing.assert_allclose(back.centre_zyx, candidates.centre_zyx * 2, atol=0.02)
    assert back.voxel_size_angstrom == 6.8


def test_a_voxel_size_of_one_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("z,y,x,voxel_size_angstrom\n1,2,3,1.0\n")
    with pytest.raises(VoxelSizeError):
        load_candidates(tmp_path / "a.csv")
    back = load_candidates(tmp_path / "a.csv", voxel_size_angstrom=10)
    np.testing.assert_array_equal(back.centre_zyx, [[1, 2, 3]])


def test_what_a_format_needs_is_asked_for(tmp_path, make_candidates):
    with pytest.raises(ConfigError, match="tilt-series-pixel-size"):
        export(make_candidates(2), tmp_path / "a.star", "relion4")
    with pytest.raises(ConfigError, match="tomogram_shape"):
        export(make_candidates(2, tomogram_shape=None), tmp_path / "a.star", "relion5")
    with pytest.raises(ConfigError, match="relion5"):
        export(make_candidates(2), tmp_path / "a.star", "relion9")
    with pytest.raises(InputError, match="different names"):
        export([make_candidates(2)] * 2, tmp_path / "a.star", "relion5")
    with pytest.raises(InputError):
        export([], tmp_path / "a.star")
    with pytest.raises(OutputError):
        export(make_candidates(2), tmp_path / "missing" / "a.star")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- files of others


def test_relion5_particles_with_their_tomograms(data, tmp_path):
    with pytest.raises(VoxelSizeError):
        load_all_candidates(data / "relion5_particles.star")
    with pytest.raises(ReadError, match="middle"):
        load_all_candidates(data / "relion5_particles.star", voxel_size_angstrom=10.52)
    found = load_all_candidates(data / "relion5_particles.star", tomograms=data / "relion5_tomograms.star")
    assert [(some.tomogram_name, len(some)) for some in found] == [("TS_01", 3), ("TS_02", 2)]
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


def test_older_relion_files(data):
    warp = load_candidates(data / "relion_one_loop.star")
    assert len(warp) == 16
    assert warp.voxel_size_angstrom == pytest.approx(5.0)
    np.testing.assert_allclose(warp.centre_zyx[0], [964.5, 1084.5, 1572.444], rtol=1e-6)
    binned = load_candidates(data / "relion_one_loop.star", voxel_size_angstrom=15)
    np.testing.assert_allclose(binned.centre_zyx * 3, warp.centre_zyx, rtol=1e-6)
    found = load_all_candidates(data / "relion31.star")
    assert [some.tomogram_name for some in found] == ["0001_sum.mrc", "0002_sum.mrc"]
    assert found[0].centre_zyx[0, 0] == pytest.approx(-51.5227)


def test_a_foreign_dynamo_table(data):
    with pytest.raises(VoxelSizeError):
        load_all_candidates(data / "dynamo.tbl")
    found = load_all_candidates(data / "dynamo.tbl", voxel_size_angstrom=10)
    assert [(some.tomogram_name, len(some)) for some in found] == [("1", 150), ("2", 150)]
    table = np.loadtxt(data / "dynamo.tbl")
    np.testing.assert_allclose(found[0].centre_zyx[0, ::-1], table[0, 23:26] + table[0, 3:6], rtol=1e-6)
    expected = Rotation.from_euler("zxz", table[:150, 6:9], degrees=True).inv()
    assert np.degrees((rotation(found[0]).inv() * expected).magnitude()).max() < 0.01


def test_a_foreign_imod_model(data):
    model = load_candidates(data / "imod_objects.mod")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = ImodModel.from_file(data / "imod_objects.mod")
    points = np.concatenate([c.points for item in reference.objects for c in item.contours])
    np.testing.assert_allclose(model.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0], points, rtol=1e-5)
    assert model.voxel_size_angstrom == pytest.approx(19.73333)


def test_every_star_file_reads_as_the_library_reads_it(data):
    for path in sorted(data.glob("*.star")):
        ours = read_star(path)
        theirs = starfile.read(path, always_dict=True)
        assert list(ours) == list(map(str, theirs))
        for name, table in theirs.items():
            assert list(ours[str(name)]) == list(table)
            for column in table:
                if pd.api.types.is_numeric_dtype(ours[str(name)][column]):
                    np.testing.assert_allclose(ours[str(name)][column], table[column].astype(float))
                else:
                    assert list(ours[str(name)][column]) == list(table[column].astype(str))


def test_star_syntax(tmp_path):
    (tmp_path / "a.star").write_text(
        "# written by hand\n\ndata_pairs\n_one 'two words' # and a comment\n_text\n;\nline 1\nline 2\n;\n"
        "\ndata_loop\nloop_ \n_rlnTomoName #1\n_number #2\n\n007 1\n'TS 8' 2.5 # comment\n\"it's\" -3\n\n"
    )
    blocks = read_star(tmp_path / "a.star")
    assert blocks["pairs"]["one"][0] == "two words"
    assert blocks["pairs"]["text"][0] == "line 1\nline 2"
    assert list(blocks["loop"]["rlnTomoName"]) == ["007", "TS 8", "it's"]
    assert list(blocks["loop"]["number"]) == [1, 2.5, -3]


def test_a_motive_list_of_stopgap(tmp_path):
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 180, (3, 3))  # phi, psi, the
    rows = [
        f"{i + 1} {tomogram} 1 {i + 1} A {100 + i} 200 300 0.{i + 1} 0.25 -0.5 1.5 "
        + " ".join(f"{a:.6f}" for a in angles[i])
        + " 1"
        for i, tomogram in enumerate((7, 7, 12))
    ]
    names = "motl_idx tomo_num object subtomo_num halfset orig_x orig_y orig_z score "
    names += "x_shift y_shift z_shift phi psi the class"
    header = "\ndata_stopgap_motivelist\n\nloop_\n" + "".join(f"_{name}\n" for name in names.split())
    (tmp_path / "motl.star").write_text(header + "\n" + "\n".join(rows) + "\n")
    with pytest.raises(VoxelSizeError):
        load_all_candidates(tmp_path / "motl.star")
    found = load_all_candidates(tmp_path / "motl.star", voxel_size_angstrom=8)
    assert [(some.tomogram_name, len(some)) for some in found] == [("7", 2), ("12", 1)]
    np.testing.assert_allclose(found[0].centre_zyx[1], [301.5, 199.5, 101.25])
    np.testing.assert_allclose(found[1].score, [0.3])
    phi, psi, theta = angles[2]
    about_z, about_x = (
        (lambda a: Rotation.from_euler("z", a, True)),
        (lambda a: Rotation.from_euler("x", a, True)),
    )
    expected = about_z(psi) * about_x(theta) * about_z(phi)
    assert np.degrees((rotation(found[1])[0].inv() * expected).magnitude()) < 0.01
    # The same pose in Dynamo's convention: tdrot = -psi, tilt = -the, narot = -phi.
    same = rotation_from_relion(relion_from_dynamo([[-psi, -theta, -phi]]))
    assert np.degrees((same[0].inv() * expected).magnitude()) < 0.01


def star_of(path, columns):
    starfile.write({"particles": pd.DataFrame(columns)}, path, overwrite=True)


def test_particles_of_warp_m_and_pytom(tmp_path):
    at = dict(zip("XYZ", ([100.0, 50.0], [200.0, 60.0], [300.0, 70.0]), strict=True))
    for suffix in ("", "1"):
        columns = {f"wrpCoordinate{a}{suffix}": v for a, v in at.items()} | {
            "wrpSourceName": ["a.tomostar"] * 2
        }
        columns |= {f"wrpAngle{n}{suffix}": [10.0, 20.0] for n in ("Rot", "Tilt", "Psi")}
        star_of(tmp_path / "m.star", columns)
        with pytest.raises(VoxelSizeError):
            load_candidates(tmp_path / "m.star")
        found = load_candidates(tmp_path / "m.star", voxel_size_angstrom=10)
        np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10], [7, 6, 5]])
        np.testing.assert_allclose(found.euler_zyz[1], [20, 20, 20], atol=1e-3)
    columns = {f"rlnCoordinate{a}": v for a, v in at.items()}
    star_of(
        tmp_path / "p.star", columns | {"rlnDetectorPixelSize": [13.8] * 2, "rlnMicrographName": ["0042"] * 2}
    )
    found = load_candidates(tmp_path / "p.star")
    assert (found.voxel_size_angstrom, found.tomogram_name) == (13.8, "0042")
    np.testing.assert_allclose(found.centre_zyx[0], [300, 200, 100])


def test_dynamo_tables_of_any_width(tmp_path):
    row = [1, 1, 0, 0.5, -1, 2, 10, 20, 30, 0.7, 0, 0, 1, -60, 60, 0, 0, 0, 0, 4, 0, 2, 0, 100, 200, 300]
    row += [0] * 9 + [7.5] + [0] * 6
    for width in range(26, 43):
        (tmp_path / "a.tbl").write_text(" ".join(map(str, row[:width])) + "\n")
        (found,) = load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=15)
        scale = 0.5 if width >= 36 else 1.0
        np.testing.assert_allclose(found.centre_zyx, [[302 * scale, 199 * scale, 100.5 * scale]])
        assert (found.tomogram_name, found.kind[0]) == ("4", "class_2")
    (tmp_path / "a.tbl").write_text(" ".join(map(str, row[:25])) + "\n")
    with pytest.raises(ReadError, match="25 columns"):
        load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=15)


def test_imod_points_below_the_first_section(tmp_path, make_candidates):
    below = make_candidates(4, centre_zyx=[[-12.5, 3, 4], [-1, -2, -3], [0, 0, 0], [7, 8, 9]])
    export(below, tmp_path / "a.mod", "imod")
    np.testing.assert_allclose(load_candidates(tmp_path / "a.mod").centre_zyx, below.centre_zyx, atol=1e-4)
    points = ImodModel.from_file(tmp_path / "a.mod").objects[0].contours[0].points
    np.testing.assert_allclose(points[:, 2], [-12.5, -1, 0, 7], atol=1e-4)


def test_imod_text_points(tmp_path, make_candidates):
    candidates = make_candidates(5)
    export(candidates, tmp_path / "a.txt", "imod")
    assert np.loadtxt(tmp_path / "a.txt")[0, 0] == pytest.approx(candidates.centre_zyx[0, 2] + 0.5, abs=1e-3)
    back = load_candidates(tmp_path / "a.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(back.centre_zyx, candidates.centre_zyx, atol=1e-3)
    (tmp_path / "b.txt").write_text("1 1 10.5 20.5 30\n1 2 1.5 2.5 -3\n")
    two = load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(two.centre_zyx, [[30, 20, 10], [-3, 2, 1]])
    (tmp_path / "b.txt").write_text("1 2\n")
    with pytest.raises(ReadError, match="2 values"):
        load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)


# ------------------------------------------------------------------------------------- RELION 5's companions


def test_companions_lead_back_to_the_candidates(tmp_path, make_candidates, monkeypatch):
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
        back = load_all_candidates(tmp_path / "Import" / start, **options)
        assert [some.tomogram_name for some in back] == ["01", "TS 2/b"]
        for some, other in zip(back, several, strict=True):
            np.testing.assert_allclose(some.centre_zyx, other.centre_zyx, atol=0.01)
            assert np.degrees((rotation(some).inv() * rotation(other)).magnitude()).max() < 0.01


def test_companions_need_the_pixel_size(tmp_path, make_candidates):
    with pytest.raises(ConfigError, match="tilt-series-pixel-size"):
        export(make_candidates(2), tmp_path / "a.star", companions=True)
    options = {"tilt_series_pixel_size_angstrom": 1.7, "companions": True}
    with pytest.raises(ConfigError, match="tomogram_shape"):
        export(make_candidates(2, tomogram_shape=None), tmp_path / "a.star", **options)
    with pytest.raises(ConfigError, match="overwritten"):
        export(make_candidates(2), tmp_path / "tomograms.star", **options)
    with pytest.raises(ConfigError, match="Companions"):
        export(make_candidates(2), tmp_path / "a.star", "relion4", **options)
    with pytest.raises(ConfigError, match="larger than the voxels"):
        export(make_candidates(2), tmp_path / "a.star", "relion4", tilt_series_pixel_size_angstrom=20)
    assert list(tmp_path.iterdir()) == []


def test_lists_that_lead_nowhere(tmp_path):
    star_of(tmp_path / "a.star", {"rlnTomoName": ["x"], "rlnTomoImportParticleFile": ["a.star"]})
    with pytest.raises(ReadError, match="another list"):
        load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)
    star_of(tmp_path / "b.star", {f"rlnCoordinate{a}": [1.0] for a in "XYZ"} | {"rlnTomoName": ["y"]})
    star_of(tmp_path / "a.star", {"rlnTomoName": ["x"], "rlnTomoImportParticleFile": ["b.star"]})
    with pytest.raises(ReadError, match="'y'"):
        load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)


# ---------------------------------------------------------------------------------------- files that run away


def test_files_that_keep_libraries_busy_are_given_up(tmp_path, monkeypatch):
    wide = "data_x\nloop_\n" + "".join(f"_a{i}\n" for i in range(20_000)) + "1 " * 20_000 + "\n"
    long = "data_x\nloop_\n_a\n_b\n" + "1 " * 2_000_000 + "\n"
    quotes = "data_x\nloop_\n_a\n_b\n" + "1 '" * 300_000 + "\n"
    for content in (wide, long, quotes):
        (tmp_path / "a.star").write_text(content)
        begin = time.perf_counter()
        with pytest.raises(ReadError):
            load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)
        assert time.perf_counter() - begin < 5
    (tmp_path / "a.tbl").write_text("1 " * 3_000_000 + "\n" + "2 " * 30 + "\n")
    with pytest.raises(ReadError):
        load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=10)
    rows = "1 2 3\n" * 30_000
    (tmp_path / "b.star").write_text("data_\nloop_\n" + "".join(f"_rlnCoordinate{a}\n" for a in "XYZ") + rows)
    assert len(load_candidates(tmp_path / "b.star", voxel_size_angstrom=10)) == 30_000
    monkeypatch.setattr(import_module("t3ssfast.export.star"), "MAX_SECONDS", -1.0)
    with pytest.raises(ReadError, match="given up"):
        load_candidates(tmp_path / "b.star", voxel_size_angstrom=10)


def test_plain_tables_of_others(tmp_path):
    (tmp_path / "a.csv").write_text("kind, z,y,x\n007,1,2,3\nb,4,5,6\n")
    with pytest.raises(VoxelSizeError):
        load_candidates(tmp_path / "a.csv")
    table = load_candidates(tmp_path / "a.csv", voxel_size_angstrom=10, tomogram_shape=(9, 9, 9))
    assert (list(table.kind), table.tomogram_name, table.tomogram_shape) == (["007", "b"], "a", (9, 9, 9))
    np.testing.assert_array_equal(table.centre_zyx, [[1, 2, 3], [4, 5, 6]])
    (tmp_path / "b.csv").write_text("z,y,x,rot,tilt,psi\n1,2,3,10,90,0\n")
    turned = load_candidates(tmp_path / "b.csv", voxel_size_angstrom=10)
    np.testing.assert_allclose(turned.normal_zyx, normal_from_euler_zyz([[10, 90, 0]]), atol=1e-6)
    (tmp_path / "c.txt").write_text("1 2 3\n\n4, 5, 6 # seen\n")
    points = load_candidates(tmp_path / "c.txt", voxel_size_angstrom=10)
    np.testing.assert_array_equal(points.centre_zyx, [[3, 2, 1], [6, 5, 4]])


def test_files_that_are_no_candidates(data, tmp_path, make_candidates):
    export(make_candidates(20), tmp_path / "good.mod", "imod")
    export(make_candidates(20), tmp_path / "good.star", "relion5")
    rng = np.random.default_rng(0)
    contents = [
        b"",
        b"\n\n",
        b"hello\n",
        b"data_\n",
        b"data_x\nloop_\n",
        b"data_x\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2\n",
        b"data_x\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 x\n",
        b"data_x\n_a 'b\n",
        b"z,y,x\n1,2,nan\n",
        b"z,y,x\n1,2\n",
        b"1 2\n",
        b"[" * 100_000,
        b"{}",
        b'{"points": [{"location": {"x": 1}}]}',
        b'{"points": [{"location": {"x": 1, "y": 2, "z": "c"}}], "voxel_spacing": 10}',
        b'{"points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": [[1]]}]}',
        b"1 " * 35 + b"\n1\n",
        b"x " * 35 + b"\n",
        rng.bytes(3000),
        b"IMODV1.2" + rng.bytes(3000),
        (data / "emd_3197.map").read_bytes()[:4000],
    ]
    good = (tmp_path / "good.mod").read_bytes()
    contents += [good[:n] for n in range(0, len(good), 97)]
    for _ in range(60):
        damaged = bytearray(good)
        for at in rng.integers(8, len(good), 4):
            damaged[at] = rng.integers(0, 256)
        contents.append(bytes(damaged))
    text = bytearray((tmp_path / "good.star").read_bytes())
    for _ in range(30):
        damaged = bytearray(text)
        damaged[rng.integers(0, len(text))] = rng.integers(0, 256)
        contents.append(bytes(damaged))
    refused = 0
    for content in contents:
        for suffix in (".star", ".tbl", ".mod", ".json", ".csv", ".txt"):
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content)
            begin = time.perf_counter()
            try:
                assert len(load_all_candidates(path, voxel_size_angstrom=10)) < 5
            except T3Error as error:
                refused += "\n" not in str(error)
            assert time.perf_counter() - begin < 2
    assert refused > 0.5 * 6 * len(contents)


@pytest.mark.parametrize("name", ["missing.star", "README.md", "emd_3197.map", "relion5_tomograms.star", ""])
def test_other_files_are_refused(data, name):
    with pytest.raises(T3Error) as caught:
        load_candidates(data / name)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------- results


def test_results_are_a_whole_folder(tmp_path, make_candidates):
    candidates = make_candidates(6, tomogram_shape=None)
    membrane = np.zeros((8, 9, 10), np.uint8)
    membrane[2:4] = 1
    provenance = {"n": np.int64(3), "path": tmp_path, "times": np.array([1.5])}
    save_results(tmp_path / "new" / "out", candidates, membrane, 13.6, provenance)
    names = sorted(p.name for p in (tmp_path / "new" / "out").iterdir())
    tables = [f"candidates.{suffix}" for suffix in ("csv", "doc", "mod", "star", "tbl")]
    assert names == [*tables, "membrane.mrc", "provenance.json"]
    with mrcfile.open(tmp_path / "new" / "out" / "membrane.mrc") as file:
        np.testing.assert_array_equal(file.data, membrane)
        assert file.voxel_size.x == pytest.approx(13.6)
    assert json.loads((tmp_path / "new" / "out" / "provenance.json").read_text())["n"] == 3
    for name in ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl"):
        assert len(load_candidates(tmp_path / "new" / "out" / name)) == 6


def test_results_without_membrane_and_without_room(tmp_path, make_candidates):
    save_results(tmp_path, make_candidates(0), None, 13.6, {})
    assert not (tmp_path / "membrane.mrc").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_results(tmp_path / "file", make_candidates(1), None, 13.6, {})


def test_a_failed_save_is_not_marked_done(tmp_path, make_candidates):
    save_results(tmp_path, make_candidates(2), None, 13.6, {})
    with pytest.raises(ConfigError):
        save_results(tmp_path, make_candidates(2, tomogram_shape=None), None, 13.6, {})
    assert not (tmp_path / "provenance.json").exists()
