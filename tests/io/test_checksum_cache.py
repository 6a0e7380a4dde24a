"""Checksums of unchanged files come from the cache, and those of changed ones never do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from t3ssfast.io import checksum_cache
from t3ssfast.io.checksum_cache import CHECKSUM_FILE, ChecksumCache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read; files count as settled at once."""
    read: list[Path] = []
    original = checksum_cache.file_sha256

    def file_sha256(path: Path, before_chunk: Callable[[], None]) -> str:
        read.append(Path(path))
        return original(path, before_chunk)

    monkeypatch.setattr(checksum_cache, "file_sha256", file_sha256)
    monkeypatch.setattr(checksum_cache, "SETTLED_SECONDS", -1.0)
    return read


def checksum(folder: Path, path: Path) -> str:
    cache = ChecksumCache(folder)
    found = cache.sha256(path)
    cache.save()
    return found


def test_an_unchanged_file_is_read_once(tmp_path, reads):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"one")
    expected = hashlib.sha256(b"one").hexdigest()
    assert [checksum(tmp_path, path) for _ in range(3)] == [expected] * 3
    assert len(reads) == 1


@pytest.mark.parametrize("how", ["content", "time restored", "replaced", "grown", "another"])
def test_a_changed_file_is_read_again(tmp_path, reads, how):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"one")
    checksum(tmp_path, path)
    before = path.stat()
    if how == "replaced":
        (tmp_path / "b").write_bytes(b"two")
        os.replace(tmp_path / "b", path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "another":
        path = tmp_path / "c.mrc"
        path.write_bytes(b"two")
    else:
        path.write_bytes(b"more" if how == "grown" else b"two")
        if how == "time restored":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert checksum(tmp_path, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(reads) == 2


def test_files_of_a_folder_are_compared_one_by_one(tmp_path, reads):
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / "0").write_bytes(b"one")
    first = checksum(tmp_path, folder)
    assert checksum(tmp_path, folder) == first
    assert len(reads) == 1
    (folder / "1").write_bytes(b"two")
    assert checksum(tmp_path, folder) != first
    assert len(reads) == 2


def test_a_file_that_was_just_written_is_not_kept(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"one")
    checksum(tmp_path, path)
    assert not (tmp_path / CHECKSUM_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": ["b"]}', b"\xff"])
def test_a_damaged_cache_is_none(tmp_path, reads, content):
    (tmp_path / CHECKSUM_FILE).write_bytes(content)
    path = tmp_path / "a.mrc"
    path.write_bytes(b"one")
    assert checksum(tmp_path, path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
