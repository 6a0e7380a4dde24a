"""The checkpoint store: finished pieces of a long computation on disk, from which an interrupted run resumes.

One store serves detection, averaging, training and the recipe of the bundled models, with one rule: a store
belongs to a key of all inputs and options that determine the result, and only pieces of that key are used.
Pieces of another key stay untouched, and a warning says that the run starts from the beginning.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import CheckpointWarning
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.tomogram import StrPath

__all__ = ["Arrays", "CheckpointStore", "Slab", "finished_slabs", "key_of", "remove_checkpoints"]

# First slice, and one past the last.
Slab = tuple[int, int]
Arrays = dict[str, npt.NDArray[Any]]

# Digits of the key in a folder's name; every piece holds the whole key.
KEY_DIGITS = 16


def key_of(*parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class CheckpointStore:
    """Finished pieces of one computation.

    Each piece is a file, written atomically: whatever ends the process costs at most the piece in progress.

    Parameters
    ----------
    folder
        The store makes a folder of its own in it, with the first piece; None keeps nothing.
    key
        Identifies the inputs and options that determine the pieces (`key_of`); or a function that returns it,
        called when the first piece is kept, or at once where there are pieces already.
    name
        Of the computation. Computations of different names share a folder without knowing of each other.
    """

    def __init__(self, folder: StrPath | None, key: str | Callable[[], str], *, name: str = "work") -> None:
        self._parent = None if folder is None else Path(folder)
        self._name = name
        self._known_key = key if isinstance(key, str) else None
        self._find_key = None if isinstance(key, str) else key
        others = [] if self._parent is None else sorted(path.name for path in _stores(self._parent, name))
        if others and self.folder is not None and not self.folder.is_dir():
            warnings.warn(
                f"{display_path(str(folder))}: the checkpoint {others[0]} belongs to another input, other "
                "options or another version, so this run starts from the beginning; remove it if it is no "
                "longer needed.",
                CheckpointWarning,
                stacklevel=2,
            )

    @property
    def _key(self) -> str:
        if self._known_key is None:
            assert self._find_key is not None, "one of the two is given"
            # Results hold their store, but not what its key was computed from.
            self._known_key, self._find_key = self._find_key(), None
        return self._known_key

    @property
    def _has_pieces(self) -> bool:
        """Whether there can be pieces: not before the key was needed."""
        return self._parent is not None and self._known_key is not None

    @property
    def folder(self) -> Path | None:
        """Where the pieces are; None keeps nothing."""
        if self._parent is None:
            return None
        return self._parent / f".t3ssfast-{self._name}-{self._key[:KEY_DIGITS]}"

    def runs(
        self, kind: str, depth: int, parse: Callable[[Slab, Arrays], Any] = lambda slab, arrays: arrays
    ) -> Iterator[tuple[Slab, Any]]:
        """Slices 0 up to `depth` in order, as runs: (slab, its piece), or (slab, None) where none is kept.

        Pieces go through `parse(slab, arrays)`, as in `load`. Overlapping pieces, which two processes with
        slabs of different thickness may leave, are used as they come; what an overlap leaves uncovered is
        computed again.
        """
        done = 0
        for first, last in self._slabs(kind):
            usable = done <= first < last <= depth
            if not usable:
                continue
            name = f"{kind}-{first:05d}-{last:05d}"
            piece = self.load(name, partial(parse, (first, last)))
            if piece is None:
                continue
            if done < first:
                yield (done, first), None
            yield (first, last), piece
            done = last
        if done < depth:
            yield (done, depth), None

    def _slabs(self, kind: str) -> list[Slab]:
        """Slabs of the pieces of a kind, in order."""
        if not self._has_pieces or self.folder is None:
            return []
        found = [re.fullmatch(rf"{kind}-(\d+)-(\d+)", path.stem) for path in self.folder.glob("*.npz")]
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def save_slab(self, kind: str, slab: Slab, /, **arrays: npt.ArrayLike) -> None:
        """Keep the piece of a slab for `runs`."""
        self.save(f"{kind}-{slab[0]:05d}-{slab[1]:05d}", **arrays)

    def load(self, name: str, parse: Callable[[Arrays], Any] = dict) -> Any:
        """Return what `save` stored under a name; None where there is no whole piece of this key.

        `parse` makes a value of the arrays. Others may be able to write into the folder, so a piece on which
        it raises an exception is as good as none.
        """
        if not self._has_pieces or self.folder is None:
            return None
        try:
            arrays = _read_npz(self.folder / f"{name}.npz")
            return parse(arrays) if str(arrays.pop("key", "")) == self._key else None
        # Whatever is wrong with a piece, it is computed anew.
        except Exception:
            return None

    def save(self, name: str, /, **arrays: npt.ArrayLike) -> None:
        """Keep a piece; it is on disk when this returns. A piece of the same name is replaced."""
        if self.folder is None:
            return
        path = results_folder(self.folder) / f"{name}.npz"
        # NumPy 1.26's `savez` leaves an archive open where the disk is full: Python prints a traceback.
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for key, array in {"key": np.array(self._key), **arrays}.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    def remove(self) -> None:
        """Remove every piece, once the result is saved."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _read_npz(path: Path) -> Arrays:
    """Read an archive as `numpy.savez` writes it; ValueError if it could take more memory than its size."""
    arrays: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("compressed")
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                if version != (1, 0):
                    raise ValueError("another version")
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
                # A header may claim any size; the array has no more bytes than the member.
                content = member.read()
            if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError("of another size than its header says")
            order: Literal["C", "F"] = "F" if fortran_order else "C"
            array = np.frombuffer(bytearray(content), dtype).reshape(shape, order=order)
            arrays[entry.filename.removesuffix(".npy")] = array
    return arrays


def remove_checkpoints(folder: Path) -> None:
    """Remove the stores of detections in a folder, of any key."""
    for path in _stores(folder, "work"):
        shutil.rmtree(path, ignore_errors=True)


def finished_slabs(folder: Path, kind: str, known: Container[Slab] = ()) -> Iterator[tuple[Slab, Arrays]]:
    """Yield the slabs that a detection at work in a folder has finished, whatever its key: to look at only.

    Slabs in `known`, and those that are damaged or just being removed, are left out.
    """
    for store in _stores(folder, "work"):
        for path in sorted(store.glob(f"{kind}-*.npz")):
            match = re.fullmatch(rf"{re.escape(kind)}-(\d+)-(\d+)", path.stem)
            if match is None or (slab := (int(match[1]), int(match[2]))) in known:
                continue
            try:
                yield slab, _read_npz(path)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue


def _stores(folder: Path, name: str) -> list[Path]:
    """Stores of a name, of any key. Names may hold dashes and brackets, keys hold neither."""
    pattern = re.compile(rf"\.t3ssfast-{re.escape(name)}-[^-]+")
    return [path for path in folder.glob(".t3ssfast-*") if pattern.fullmatch(path.name)]
