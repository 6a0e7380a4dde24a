"""Atomic writing, folders of results, names and checksums of files."""

from __future__ import annotations

import os

import pytest

from t3ssfast.errors import OutputError, ReadError
from t3ssfast.io import (
    atomic_path,
    display_path,
    file_sha256,
    remove_temporaries,
    results_folder,
    tomogram_name,
)


def write_and_fail(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


def test_existing_file_is_unchanged_after_an_error(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            write_and_fail(target, error)
    with pytest.raises(OutputError, match="No space"):
        write_and_fail(target, OSError(28, "No space left on device"))
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk_raises_output_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with (
        pytest.raises(OutputError, match="space"),
        atomic_path(tmp_path / "a.mrc"),
        open("/dev/full", "wb") as full,
    ):
        full.write(bytes(1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_temporaries_are_removed(tmp_path):
    (tmp_path / "result.mrc").touch()
    with atomic_path(tmp_path / "a.mrc") as temporary:
        left_over = temporary.with_name(temporary.name.replace(".tmp", "0.tmp"))
        left_over.touch()
        temporary.touch()
    remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mrc", "result.mrc"]


def test_results_folder_removes_the_completion_marker(tmp_path):
    folder = tmp_path / "a" / "b"
    assert results_folder(folder, "done.json") == folder
    (folder / "done.json").write_text("{}")
    (folder / "other").write_text("")
    results_folder(folder, "done.json")
    assert sorted(p.name for p in folder.iterdir()) == ["other"]
    with pytest.raises(OutputError, match="not usable as a folder"):
        results_folder(folder / "other")


def test_tomogram_names_and_displayed_paths():
    assert tomogram_name("/x/007_tomo.rec.gz") == "007_tomo"
    assert tomogram_name("TS_01.mrc_15.00Apx.mrc") == "TS_01.mrc_15.00Apx"
    assert tomogram_name(".mrc") == ".mrc"
    assert display_path("a\nb") == r"'a\nb'"


def test_checksums_of_files_and_folders(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf")
    first = file_sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert file_sha256(tmp_path) != first
    with pytest.raises(ReadError):
        file_sha256(tmp_path / "c")
