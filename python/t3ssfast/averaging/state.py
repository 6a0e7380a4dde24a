"""What one iteration hands to the next, on disk: a run that was killed goes on where it was."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.errors import OutputError
from t3ssfast.io import atomic_path, display_path

__all__ = ["State", "last_state", "save_state"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """The outcome of an iteration.

    Parameters
    ----------
    iteration
        How many are done.
    rotation
        (n, 3, 3) float32 object-to-tomogram rotations, zyx.
    offset
        (n, 3) float32 positions from voxel box // 2 of each box, zyx voxels.
    score
        (n,) float64 correlations with the half's own reference; NaN before the first iteration.
    kept
        (n,) bool, what is in the averages.
    halves
        (2, box, box, box) float32 half maps in one frame.
    references
        (2, groups, box, box, box) float32: each half without one group of its particles.
    """

    iteration: int
    rotation: Float32
    offset: Float32
    score: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]
    halves: Float32
    references: Float32


def save_state(folder: Path, state: State, key: str) -> None:
    """Write an iteration's state into `folder` (made where missing), atomically; older ones are removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{display_path(folder)} cannot be made a folder ({error.strerror}); choose another."
        ) from error
    values: dict[str, Any] = {item.name: np.asarray(getattr(state, item.name)) for item in fields(State)}
    with atomic_path(_path(folder, state.iteration)) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=np.array(key), **values)
    for older in folder.glob("iteration_*.npz"):
        if older != _path(folder, state.iteration):
            older.unlink(missing_ok=True)


def last_state(folder: Path, key: str, most: int) -> State | None:
    """The latest state of the same work in `folder`, of at most `most` iterations, or None."""
    for path in sorted(folder.glob("iteration_*.npz"), reverse=True):
        try:
            with np.load(path) as file:
                if str(file["key"]) != key or int(file["iteration"]) > most:
                    continue
                values = {item.name: file[item.name] for item in fields(State) if item.name != "iteration"}
                return State(iteration=int(file["iteration"]), **values)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Not written by us, or by another version: it is as if it were not there.
            continue
    return None


def _path(folder: Path, iteration: int) -> Path:
    return folder / f"iteration_{iteration:03d}.npz"
