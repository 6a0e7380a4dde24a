"""Candidates: detected or known particles of one tomogram, with scores and poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FLAGELLAR_MOTOR",
    "LABELS",
    "PARTICLE_KINDS",
    "T3SS",
    "Candidates",
    "euler_zyz_from_normal",
    "normal_from_euler_zyz",
]

# Verdicts of a person on a candidate; "" is none.
LABELS = ("accepted", "rejected", "unsure")

FloatArray = npt.NDArray[np.float32]

# Kinds of particles that the models tell apart; files and simulations may hold others.
T3SS, FLAGELLAR_MOTOR = "t3ss", "flagellar_motor"
PARTICLE_KINDS = (T3SS, FLAGELLAR_MOTOR)
# Fields with an entry for each candidate.
ARRAYS = ("centre_zyx", "score", "normal_zyx", "kind", "rot_degrees", "label")


def euler_zyz_from_normal(normal_zyx: npt.ArrayLike) -> FloatArray:
    """Compute the RELION Euler angles that rotate a particle's +z axis onto a normal, with rot = 0.

    For a unit normal (nx, ny, nz): tilt = acos(nz), psi = atan2(ny, -nx), where
    ``R_object_to_tomogram = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv()``
    (RELION's intrinsic ZYZ convention). A normal along +-z has psi = 0.

    Parameters
    ----------
    normal_zyx
        (n, 3) vectors of any nonzero length.

    Returns
    -------
    (n, 3) float32 array of rot, tilt, psi in degrees.

    Raises
    ------
    InputError
        If a vector is zero or not finite.
    """
    normal = np.atleast_2d(np.asarray(normal_zyx, dtype=np.float64)).reshape(-1, 3)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise InputError("normal_zyx: a vector is zero or not finite; give a direction for every candidate.")
    nz, ny, nx = (normal / length).T
    # acos(nz) loses half of its digits near the poles; hypot does not.
    lateral = np.hypot(nx, ny)
    tilt = np.degrees(np.arctan2(lateral, nz))
    psi = np.where(lateral > 0, np.degrees(np.arctan2(ny, -nx)), 0.0)
    return np.stack([np.zeros_like(tilt), tilt, psi], axis=1).astype(np.float32)


def normal_from_euler_zyz(euler_zyz: npt.ArrayLike) -> FloatArray:
    """Compute the direction of a particle's +z axis from its RELION Euler angles.

    This is the inverse of `euler_zyz_from_normal`, except that it does not depend on rot.

    Parameters
    ----------
    euler_zyz
        (n, 3) rot, tilt, psi in degrees.

    Returns
    -------
    (n, 3) float32 unit vectors, zyx.
    """
    euler = np.asarray(euler_zyz, dtype=np.float64).reshape(-1, 3)
    if len(euler) == 0:
        return np.zeros((0, 3), np.float32)
    rotation = Rotation.from_euler("ZYZ", euler, degrees=True).inv()
    normal: FloatArray = rotation.apply([0.0, 0.0, 1.0])[:, ::-1].astype(np.float32)
    return normal


@dataclass(frozen=True)
class Candidates:
    """Detected or known particles of one tomogram.

    Parameters
    ----------
    centre_zyx
        (n, 3) float32 positions in voxels of the tomogram, 0-based, at voxel centres.
    score
        (n,) float32 in [0, 1].
    normal_zyx
        (n, 3) float32 unit vectors pointing out of the cell, along the needle.
    voxel_size_angstrom
        Voxel size of the tomogram.
    tomogram_shape
        (z, y, x) shape of the tomogram, or None if unknown.
    tomogram_name
        Name of the tomogram in star files.
    kind
        (n,) labels such as "t3ss" or "flagellar_motor", or one for all. Default: "t3ss", also where it is
        empty.
    rot_degrees
        (n,) float32 rotation about the normal. Default: 0.
    label
        (n,) verdicts of a person: one of `LABELS`, or "" for none. Default: "".
    details
        Further (n,) arrays by name, such as "classifier_score"; they become columns of tables.

    Raises
    ------
    InputError
        If the arrays differ in length, a centre or normal is not finite, a normal is zero, or a label is
        unknown.
    """

    centre_zyx: FloatArray
    score: FloatArray
    normal_zyx: FloatArray
    voxel_size_angstrom: float
    tomogram_shape: tuple[int, int, int] | None = None
    tomogram_name: str = "tomogram"
    kind: npt.NDArray[np.str_] = field(default=None)  # type: ignore[arg-type]
    rot_degrees: FloatArray = field(default=None)  # type: ignore[arg-type]
    label: npt.NDArray[np.str_] = field(default=None)  # type: ignore[arg-type]
    details: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        centre = np.ascontiguousarray(self.centre_zyx, dtype=np.float32).reshape(-1, 3)
        normal = np.asarray(self.normal_zyx, dtype=np.float64).reshape(-1, 3)
        n = len(centre)
        arrays: dict[str, npt.NDArray[Any]] = {
            "centre_zyx": centre,
            "score": np.ascontiguousarray(self.score, dtype=np.float32).reshape(-1),
            "normal_zyx": normal,
            "kind": self._kinds(n),
            "rot_degrees": np.zeros(n, np.float32)
            if self.rot_degrees is None
            else np.asarray(self.rot_degrees, np.float32),
            "label": np.full(n, "", "<U8") if self.label is None else np.asarray(self.label, dtype=str),
        }
        details = {name: np.asarray(values) for name, values in self.details.items()}
        for name, array in (arrays | details).items():
            if len(array) != n:
                raise InputError(f"{name}: {len(array)} entries for {n} centres; give one for each centre.")
        norm = np.linalg.norm(normal, axis=1, keepdims=True)
        if not np.isfinite(centre).all():
            raise InputError("centre_zyx: a centre is not finite; remove this candidate.")
        if not np.isfinite(norm).all() or (norm == 0).any():
            raise InputError("normal_zyx: a normal is zero or not finite; remove this candidate.")
        if unknown := set(arrays["label"].tolist()) - {"", *LABELS}:
            listed = ", ".join(LABELS)
            raise InputError(f"label: {min(unknown)[:60]!r} is unknown; give {listed}, or nothing.")
        arrays["normal_zyx"] = (normal / norm).astype(np.float32)
        object.__setattr__(self, "details", details)
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def _kinds(self, n: int) -> npt.NDArray[np.str_]:
        kind = np.asarray(T3SS if self.kind is None else self.kind)
        if kind.ndim > 1 or (kind.size and kind.dtype.kind not in "UO"):
            raise InputError(f"kind: it holds {kind.dtype} {kind.shape}; give one text for each centre.")
        if kind.ndim == 0:
            return np.full(n, str(kind) or T3SS, "<U32")
        labels = kind.astype(str)
        return np.where(labels == "", T3SS, labels)

    @classmethod
    def empty(
        cls,
        voxel_size_angstrom: float,
        tomogram_shape: tuple[int, int, int] | None = None,
        tomogram_name: str = "tomogram",
    ) -> Candidates:
        """Return an object without candidates."""
        none = np.zeros((0, 3), np.float32)
        return cls(none, np.zeros(0, np.float32), none, voxel_size_angstrom, tomogram_shape, tomogram_name)

    def __len__(self) -> int:
        return len(self.centre_zyx)

    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Candidates:
        """Select candidates by a slice, indices or a boolean mask."""
        if not isinstance(index, slice):
            index = np.atleast_1d(np.asarray(index))
        chosen: dict[str, Any] = {name: getattr(self, name)[index] for name in ARRAYS}
        details = {name: values[index] for name, values in self.details.items()}
        return replace(self, details=details, **chosen)

    def of_kinds(self, *kinds: str) -> Candidates:
        """Select the candidates of some kinds."""
        return self[np.isin(self.kind, kinds)]

    def joined(self, other: Candidates) -> Candidates:
        """Append the candidates of another set, in the same voxels of the same tomogram.

        Of the details, those that both have remain.
        """
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in ARRAYS
        }
        common = [name for name in self.details if name in other.details]
        details = {name: np.concatenate([self.details[name], other.details[name]]) for name in common}
        return replace(self, details=details, **arrays)

    @property
    def euler_zyz(self) -> FloatArray:
        """(n, 3) float32 RELION angles rot, tilt, psi in degrees (see `euler_zyz_from_normal`)."""
        euler = euler_zyz_from_normal(self.normal_zyx)
        euler[:, 0] = self.rot_degrees
        return euler

    def sorted_by_score(self) -> Candidates:
        """Return the candidates from highest to lowest score; equal scores keep their order."""
        return self[np.argsort(-self.score, kind="stable")]

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per candidate: z, y, x, score, normal_z/y/x, rot, tilt, psi, kind.

        The details follow, and the label if a candidate has one.
        """
        import pandas as pd

        columns: dict[str, Any] = dict(zip("zyx", self.centre_zyx.T, strict=True))
        columns["score"] = self.score
        columns |= dict(zip(("normal_z", "normal_y", "normal_x"), self.normal_zyx.T, strict=True))
        columns |= dict(zip(("rot", "tilt", "psi"), self.euler_zyz.T, strict=True))
        columns["kind"] = self.kind
        columns |= self.details
        if (self.label != "").any():
            columns["label"] = self.label
        table: pd.DataFrame = pd.DataFrame(columns)
        return table
