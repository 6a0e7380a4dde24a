"""Names of one tomogram in files of different programs, and of files named alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3ssfast.errors import InputError
from t3ssfast.io.tomogram_names import distinct_names, match_names, normalise_name, require_common_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TS_01.tomostar", "TS_01"),
        ("/data/rec/TS_01.mrc", "TS_01"),
        ("C:\\data\\TS_01.rec.gz", "TS_01"),
        ("rec_TS_01.mrc", "TS_01"),
        ("TS_01_Vol.mrc", "TS_01"),
        ("TS_01_12.00Apx.mrc", "TS_01"),
        ("TS_01_rec.mrc", "TS_01"),
        ("000001@stacks/TS_01.mrcs", "TS_01"),
        ("7.000000", "7"),
        ("0007", "0007"),
        ("007.10", "007.10"),
        ("TS_010", "TS_010"),
        ("rec_", "rec_"),
        (".mrc", ".mrc"),
    ],
)
def test_names_of_one_tomogram_are_the_same(name, expected):
    assert normalise_name(name) == expected


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(name):
    once = normalise_name(name)
    assert once or not name
    assert normalise_name(once) == once


def test_names_match_exactly_before_they_match_normalised():
    names = ["TS_01", "TS_01.tomostar", "TS_02.mrc"]
    assert match_names(["TS_01", "TS_01.tomostar", "TS_02", "TS_03"], names) == {
        "TS_01": "TS_01",
        "TS_01.tomostar": "TS_01.tomostar",
        "TS_02": "TS_02.mrc",
    }
    # Two of the file are the same tomogram by their names; neither is guessed.
    assert match_names(["rec_TS_01"], names) == {}


def test_files_without_a_common_tomogram_are_refused():
    require_common_names({"a.star": ["TS_01"], "b.star": ["TS_01.tomostar", "x"], "empty.star": []})
    with pytest.raises(InputError, match=r"b\.star: its tomograms are 'x', 'y'.*a\.star, which has 'TS_01'"):
        require_common_names({"a.star": ["TS_01"], "b.star": ["x", "y"]})


def test_files_named_alike_get_distinct_names(tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "b" / "a"
    assert distinct_names([a / "TS_01.mrc", b / "TS_02.mrc"]) == ["TS_01", "TS_02"]
    assert distinct_names([a / "TS.mrc", b / "TS.mrc", b / "X.mrc"]) == ["a_TS", "b_TS", "X"]
    assert distinct_names([a / "TS.mrc", c / "TS.mrc"])[1] == "b_a_TS"
    assert distinct_names([a / "TS.mrc", a / "TS.rec"]) == ["TS_mrc", "TS_rec"]
    assert len(set(distinct_names([a / "TS.mrc", b / "TS.mrc", b / "a_TS.mrc"]))) == 3
    assert len({name.casefold() for name in distinct_names([a / "TS.mrc", a / "ts.mrc"])}) == 2
    with pytest.raises(InputError, match="given 2 times"):
        distinct_names([a / "TS.mrc", b / ".." / "a" / "TS.mrc"])


FOLDER = st.sampled_from(["a", "b", "A", "a_b"])
FILE = st.tuples(FOLDER, FOLDER, st.sampled_from(["TS", "ts", "a_TS"]), st.sampled_from(["mrc", "rec"]))


@given(st.lists(FILE, max_size=8, unique=True))
def test_names_are_distinct_whatever_the_folders(parts):
    paths = [f"/{first}/{second}/{name}.{suffix}" for first, second, name, suffix in parts]
    names = distinct_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(name and "/" not in name for name in names)
