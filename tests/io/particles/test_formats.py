"""Round trips through every format."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import EXPORT_OPTIONS, FILE_NAMES, assert_equal_candidates
from t3ssfast.candidates import Candidates, normal_from_euler_zyz
from t3ssfast.errors import ConfigError, InputError, OutputError, ReadError
from t3ssfast.io.particles import FORMATS, export, load_all_candidates, load_candidates


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path, make_candidates, format):
    candidates = make_candidates(30)
    export(candidates, tmp_path / FILE_NAMES[format], format, **EXPORT_OPTIONS.get(format, {}))
    found = load_candidates(tmp_path / FILE_NAMES[format])
    assert_equal_candidates(found, candidates, format)
    assert found.tomogram_name == "TS_007"
    assert list(found.kind) == ["t3ss"] * 30


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
def test_round_trip_of_arbitrary_candidates(tmp_path_factory, rows, format, voxel_size):
    rows = np.array(rows)
    candidates = Candidates(
        rows[:, :3],
        np.linspace(1, 0, len(rows)),
        normal_from_euler_zyz(rows[:, 3:]),
        voxel_size,
        tomogram_shape=(300, 400, 500),
        rot_degrees=rows[:, 3],
    )
    path = tmp_path_factory.mktemp("round_trip") / FILE_NAMES[format]
    export(candidates, path, format, **EXPORT_OPTIONS.get(format, {}))
    assert_equal_candidates(load_candidates(path), candidates, format)


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip_without_candidates(tmp_path, make_candidates, format):
    export(make_candidates(0), tmp_path / FILE_NAMES[format], format, **EXPORT_OPTIONS.get(format, {}))
    found = load_candidates(tmp_path / FILE_NAMES[format], voxel_size_angstrom=13.6)
    assert len(found) == 0
    assert found.voxel_size_angstrom == pytest.approx(13.6)


@pytest.mark.parametrize(
    "name", ["0007", "TS 01", "data_01", "loop_", "a#b", "ünïcode", "1e5", "nan", "007.10"]
)
@pytest.mark.parametrize("format", ["relion5", "dynamo", "imod", "copick", "csv", "coords"])
def test_round_trip_of_tomogram_names(tmp_path, make_candidates, name, format):
    candidates = make_candidates(3, tomogram_name=name)
    export(candidates, tmp_path / FILE_NAMES[format], format)
    assert load_candidates(tmp_path / FILE_NAMES[format]).tomogram_name == name


@pytest.mark.parametrize(
    "name", ["a'b", 'a"b', "a\nb", "a\tb", "../../x", "'; --", "a\0b", "data_\n\nloop_", " "]
)
@pytest.mark.parametrize("format", ["relion5", "dynamo", "imod", "copick", "csv", "coords"])
def test_hostile_names_are_harmless(tmp_path, make_candidates, name, format):
    candidates = make_candidates(3, tomogram_name=name, kind=np.array([name] * 3))
    folder = tmp_path / "out"
    folder.mkdir()
    export(candidates, folder / FILE_NAMES[format], format)
    found = load_all_candidates(folder / FILE_NAMES[format])
    assert [len(one) for one in found] == [3]
    np.testing.assert_allclose(found[0].centre_zyx, candidates.centre_zyx, atol=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_round_trip_of_kinds(tmp_path, make_candidates):
    kinds = np.array(["flagellar_motor", "t3ss"] * 5)
    candidates = make_candidates(10, kind=kinds)
    for format in ("relion5", "imod", "csv"):
        export(candidates, tmp_path / FILE_NAMES[format], format)
        found = load_candidates(tmp_path / FILE_NAMES[format])
        assert_equal_candidates(found, candidates, format)
        assert list(found.kind) == list(kinds)
    for name, format in (("kinds.tbl", "dynamo"), ("motl.star", "stopgap")):
        export(candidates, tmp_path / name, format)
        (found,) = load_all_candidates(tmp_path / name, voxel_size_angstrom=candidates.voxel_size_angstrom)
        assert list(found.kind) == list(kinds)
        export(candidates.of_kinds("flagellar_motor"), tmp_path / name, format)
        (found,) = load_all_candidates(tmp_path / name, voxel_size_angstrom=candidates.voxel_size_angstrom)
        assert set(found.kind) == {"flagellar_motor"}
        # A class file of an earlier export must not rename the classes of this one.
        export(candidates.of_kinds("t3ss"), tmp_path / name, format)
        assert not (tmp_path / name).with_suffix(".classes").exists()
    assert set(np.loadtxt(tmp_path / "kinds.tbl", usecols=21)) == {1}
    export(candidates, tmp_path / "run", "copick")
    assert set(load_candidates(tmp_path / "run").kind) == {"t3ss", "flagellar_motor"}
    names = {p.name for p in (tmp_path / "run" / "Picks").iterdir()}
    assert names == {"t3ssfast_1_t3ss.json", "t3ssfast_1_flagellar-motor.json"}
    assert_equal_candidates(load_candidates(tmp_path / "run"), candidates, "copick")


@pytest.mark.parametrize("format", ["relion5", "relion4", "dynamo", "csv"])
def test_several_tomograms_in_one_file(tmp_path, make_candidates, format):
    several = [
        make_candidates(5, 1, tomogram_name="01"),
        make_candidates(0, 2, tomogram_name="1"),
        make_candidates(4, 3, tomogram_name="2", voxel_size_angstrom=10.0, tomogram_shape=(50, 60, 70)),
    ]
    export(several, tmp_path / FILE_NAMES[format], format, **EXPORT_OPTIONS.get(format, {}))
    path = tmp_path / FILE_NAMES[format]
    found = {one.tomogram_name: one for one in load_all_candidates(path)}
    for expected in several:
        if len(expected):
            name = expected.tomogram_name
            assert_equal_candidates(found[name], expected, format)
            assert_equal_candidates(load_candidates(path, tomogram=name), expected, format)
    with pytest.raises(ReadError, match="give one as tomogram"):
        load_candidates(tmp_path / FILE_NAMES[format])
    with pytest.raises(ReadError, match="no candidates of"):
        load_candidates(tmp_path / FILE_NAMES[format], tomogram="7")


@pytest.mark.parametrize("format", ["imod", "copick", "coords"])
def test_formats_of_one_tomogram_refuse_two(tmp_path, make_candidates, format):
    several = [make_candidates(2, tomogram_name=name) for name in "ab"]
    with pytest.raises(ConfigError, match="2 were given"):
        export(several, tmp_path / FILE_NAMES[format], format)
    assert list(tmp_path.iterdir()) == []


def test_equal_candidates_give_equal_files(tmp_path, make_candidates):
    for format in ("relion5", "dynamo", "imod", "csv", "coords"):
        export(make_candidates(5), tmp_path / FILE_NAMES[format], format)
        first = (tmp_path / FILE_NAMES[format]).read_bytes()
        time.sleep(0.01)
        export(make_candidates(5), tmp_path / FILE_NAMES[format], format)
        assert (tmp_path / FILE_NAMES[format]).read_bytes() == first


@pytest.mark.parametrize("format", FORMATS)
def test_positions_are_converted_to_another_binning(tmp_path, make_candidates, format):
    candidates = make_candidates(5)
    export(candidates, tmp_path / FILE_NAMES[format], format, **EXPORT_OPTIONS.get(format, {}))
    found = load_candidates(
        tmp_path / FILE_NAMES[format], voxel_size_angstrom=6.8, tomogram_shape=(602, 2880, 2046)
    )
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx * 2, atol=0.02)
    assert found.voxel_size_angstrom == 6.8


def test_missing_information_raises_and_leaves_no_file(tmp_path, make_candidates):
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
