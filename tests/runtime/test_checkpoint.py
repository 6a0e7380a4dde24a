"""Pieces of a checkpoint that others can write are used only if they are whole and of the right form."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from t3ssfast.errors import CheckpointWarning
from t3ssfast.runtime.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path, "key")
    store.save("piece", value=np.arange(3))
    return store


def npz(shape: tuple[int, ...], content: bytes = b"", *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with one array whose header claims a shape."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, array in (("key", np.array("key")), ("value", np.zeros(0))):
            member = io.BytesIO()
            if name == "key":
                np.lib.format.write_array(member, array)
            else:
                header = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(content)
            archive.writestr(f"{name}.npy", member.getvalue())
    return out.getvalue()


def plain_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(3))
    return out.getvalue()


def pickled() -> bytes:
    out = io.BytesIO()
    np.savez(out, key=np.array("key"), value=np.array([{}], dtype=object))
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npz((1_500_000_000,)),
        npz((2**40, 2**40)),
        npz((-1,)),
        npz((2,), bytes(17)),
        npz((1_000_000,), bytes(8_000_000), compression=zipfile.ZIP_DEFLATED),
        plain_array(),
        pickled(),
        json.dumps({"value": 1}).encode(),
        b"",
        b"PK" + bytes(200),
    ],
    ids=["12 GB", "overflow", "negative", "short", "bomb", "plain npy", "pickle", "JSON", "empty", "zeros"],
)
def test_other_content_is_as_good_as_none(store, content):
    assert np.array_equal(store.load("piece")["value"], np.arange(3))
    (store.folder / "piece.npz").write_bytes(content)
    assert store.load("piece") is None
    store.save("piece", value=np.arange(4))
    assert np.array_equal(store.load("piece")["value"], np.arange(4))


def test_an_honest_archive_of_the_same_making_is_read(store):
    (store.folder / "piece.npz").write_bytes(npz((2,), np.array([1.0, 2.0]).tobytes()))
    assert np.array_equal(store.load("piece")["value"], [1, 2])


@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError, AttributeError, RuntimeError])
def test_a_piece_that_cannot_be_parsed_is_as_good_as_none(store, error):
    def parse(arrays):
        raise error("no")

    assert store.load("piece", parse) is None
    store.save_slab("some", (0, 4), value=1)
    assert list(store.runs("some", 4, lambda slab, arrays: parse(arrays))) == [((0, 4), None)]


def test_arrays_keep_dtype_order_and_are_writable(store):
    arrays = {
        "a": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "b": np.array("text"),
        "c": np.array(2.5),
    }
    store.save("other", **arrays)
    loaded = store.load("other")
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
        assert loaded[name].flags.writeable


def test_a_key_that_comes_later_is_asked_for_when_it_is_needed(tmp_path):
    asked = []

    def key() -> str:
        asked.append(1)
        return "key"

    first = CheckpointStore(tmp_path, key)
    assert first.load("piece") is None
    assert list(first.runs("slab", 3)) == [((0, 3), None)]
    assert not asked
    first.save_slab("slab", (0, 2), value=1)
    first.save("piece", value=2)
    assert len(asked) == 1
    # Where pieces are, the key tells at once whose they are.
    second = CheckpointStore(tmp_path, key)
    assert len(asked) == 2
    assert second.folder == first.folder == CheckpointStore(tmp_path, "key").folder
    assert int(second.load("piece")["value"]) == 2
    assert [slab for slab, _ in second.runs("slab", 3)] == [(0, 2), (2, 3)]
    with pytest.warns(CheckpointWarning, match="another input"):
        CheckpointStore(tmp_path, lambda: "another")
    assert CheckpointStore(None, key).folder is None
    assert len(asked) == 2
