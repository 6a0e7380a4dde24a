"""The finished pieces of a detection on the disk: one that was stopped goes on where it was.

Each piece is a file of its own, written to a temporary, synced and renamed, so that whatever ends the process
takes no more than the slab in progress. Pieces lie in a folder named after a key of all that decides about
the result: those of another input, model, configuration or version are never looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import OutputError
from t3ssfast.io import atomic_path, shown

__all__ = ["Checkpoint", "Slab", "key_of", "remove_checkpoints"]

Slab = tuple[int, int]
Arrays = dict[str, npt.NDArray[Any]]

PREFIX = ".t3ssfast-work-"
# Of the key, in a folder's name; the whole of it is in every piece.
SHOWN_KEY = 16


def key_of(*parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Checkpoint:
    """Pieces of one detection in a folder; one without a folder holds nothing.

    Parameters
    ----------
    folder
        Where its own folder is made, with the first piece; None keeps nothing.
    key
        Of all that decides about the pieces.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, key: str) -> None:
        self._key = key
        self._folder = None if folder is None else Path(folder) / f"{PREFIX}{key[:SHOWN_KEY]}"

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    def runs(self, kind: str, depth: int) -> Iterator[tuple[Slab, Arrays | None]]:
        """Slices 0 up to `depth`, from first to last, in runs: pieces that were kept, and what is left
        between.

        Pieces that overlap, as two processes with slabs of other thickness may leave them, are taken as they
        come; what an overlap leaves uncovered is done again.
        """
        done = 0
        for first, last in [*self._kept(kind), (depth, depth)]:
            if first < done or last > depth:
                continue
            arrays = self.load(kind, (first, last)) if first < last else None
            if first < depth and arrays is None:
                continue
            if done < first:
                yield (done, first), None
            if arrays is not None:
                yield (first, last), arrays
            done = last

    def _kept(self, kind: str) -> list[Slab]:
        """The pieces of a kind, in order."""
        if self._folder is None or not self._folder.is_dir():
            return []
        found = [re.fullmatch(rf"{kind}-(\d+)-(\d+)\.npz", path.name) for path in self._folder.iterdir()]
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def load(self, kind: str, slab: Slab = (0, 0)) -> Arrays | None:
        """What `save` was given, or None where there is no such piece, whole and of this key."""
        if self._folder is None:
            return None
        try:
            # NumPy would not close a file that it cannot read.
            with open(self._path(kind, slab), "rb") as raw, np.load(raw) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return arrays if str(arrays.pop("key", "")) == self._key else None

    def save(self, kind: str, slab: Slab = (0, 0), /, **arrays: npt.ArrayLike) -> None:
        """Keep a piece; it is on the disk when this returns.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{shown(self._folder)} cannot be made a folder ({error.strerror}); free some space, or give "
                "another place."
            ) from error
        with atomic_path(self._path(kind, slab)) as temporary, open(temporary, "wb") as file:
            np.savez(file, key=np.array(self._key), **arrays)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Remove every piece: the result is where it belongs."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, kind: str, slab: Slab) -> Path:
        assert self._folder is not None, "only where pieces are kept"
        return self._folder / f"{kind}-{slab[0]:05d}-{slab[1]:05d}.npz"


def remove_checkpoints(folder: Path) -> None:
    """Remove the pieces of every detection in a folder, of whatever key."""
    for path in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
