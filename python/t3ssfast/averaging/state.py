"""The state of a refinement between two iterations, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t3ssfast.runtime.checkpoint import CheckpointStore

__all__ = ["State", "load_state", "save_state"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """The result of an iteration for n particles."""

    # Number of finished iterations.
    iteration: int
    # (n, 3, 3) particle-to-tomogram rotations, acting on zyx vectors.
    rotation: Float32
    # (n, 3) positions relative to voxel box // 2 of each box, zyx voxels.
    offset: Float32
    # (n,) correlations with the reference of the particle's half set; NaN before the first iteration.
    score: npt.NDArray[np.float64]
    # (n,) whether the particle is part of the averages.
    kept: npt.NDArray[np.bool_]
    # (2, box, box, box) half maps, aligned to each other.
    halves: Float32
    # (2, groups, box, box, box) half maps without one group of their particles.
    references: Float32


def save_state(store: CheckpointStore, state: State) -> None:
    """Replace the stored state."""
    store.save("state", **vars(state))


def load_state(store: CheckpointStore, max_iterations: int) -> State | None:
    """Load the stored state; None if there is none, or one of more than `max_iterations` iterations."""
    arrays = store.load("state")
    if arrays is None:
        return None
    iteration = int(arrays.pop("iteration"))
    return State(iteration, **arrays) if iteration <= max_iterations else None
