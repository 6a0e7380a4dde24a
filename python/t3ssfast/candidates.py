"""The nouns: a tomogram, the candidates found in it, and the defaults of a detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Candidates", "euler_zyz_from_normal", "normal_from_euler_zyz"]

FloatArray = npt.NDArray[np.float32]


def euler_zyz_from_normal(normal_zyx: npt.ArrayLike) -> FloatArray:
    """Angles that turn a particle's +z axis onto a normal, with rot = 0.

    With a unit normal (nx, ny, nz): tilt = acos(nz), psi = atan2(ny, -nx), in
    ``R_object_to_tomogram = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv()``
    (RELION's intrinsic ZYZ convention). A normal along +-z has psi = 0.

    Parameters
    ----------
    normal_zyx
        (n, 3) vectors, any length but zero, zyx.

    Returns
    -------
    (n, 3) float32 degrees: rot, tilt, psi.
    """
    normal = np.atleast_2d(np.asarray(normal_zyx, dtype=np.float64)).reshape(-1, 3)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    if np.any(~np.isfinite(length)) or np.any(length == 0):
        raise InputError("A normal is zero or not finite; every candidate needs a direction of length > 0.")
    nz, ny, nx = (normal / length).T
    # hypot keeps precision near the poles, where acos(nz) loses half of its digits.
    lateral = np.hypot(nx, ny)
    tilt = np.degrees(np.arctan2(lateral, nz))
    psi = np.where(lateral > 0, np.degrees(np.arctan2(ny, -nx)), 0.0)
    return np.stack([np.zeros_like(tilt), tilt, psi], axis=1).astype(np.float32)


def normal_from_euler_zyz(euler_zyz: npt.ArrayLike) -> FloatArray:
    """Direction of a particle's +z axis in the tomogram; inverse of `euler_zyz_from_normal` up to rot.

    Parameters
    ----------
    euler_zyz
        (n, 3) degrees: rot, tilt, psi.

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
    """Particles found (or known) in one tomogram.

    Parameters
    ----------
    centre_zyx
        (n, 3) float32, voxels of the tomogram, 0-based, at voxel centres.
    score
        (n,) float32 in [0, 1].
    normal_zyx
        (n, 3) float32 unit vectors, out of the cell (the needle's way).
    voxel_size_angstrom
        Of the tomogram the centres refer to.
    tomogram_shape
        (z, y, x) of that tomogram, or None where unknown.
    tomogram_name
        Its name in star files.
    kind
        (n,) labels such as "t3ss" or "flagellar_motor"; "t3ss" throughout where not given.
    rot_degrees
        (n,) float32 rotation about the normal; 0 where not given.
    """

    centre_zyx: FloatArray
    score: FloatArray
    normal_zyx: FloatArray
    voxel_size_angstrom: float
    tomogram_shape: tuple[int, int, int] | None = None
    tomogram_name: str = "tomogram"
    kind: npt.NDArray[np.str_] = field(default=None)  # type: ignore[arg-type]
    rot_degrees: FloatArray = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        centre = np.ascontiguousarray(self.centre_zyx, dtype=np.float32).reshape(-1, 3)
        n = len(centre)
        normal = np.asarray(self.normal_zyx, dtype=np.float64).reshape(-1, 3)
        score = np.ascontiguousarray(self.score, dtype=np.float32).reshape(-1)
        kind = np.full(n, "t3ss", dtype="<U32") if self.kind is None else np.asarray(self.kind, dtype=str)
        rot = (
            np.zeros(n, np.float32) if self.rot_degrees is None else np.asarray(self.rot_degrees, np.float32)
        )
        lengths = {"score": len(score), "normal_zyx": len(normal), "kind": len(kind), "rot_degrees": len(rot)}
        for name, length in lengths.items():
            if length != n:
                raise InputError(f"{name} has {length} entries for {n} centres; give one for each.")
        norm = np.linalg.norm(normal, axis=1, keepdims=True)
        if not np.isfinite(centre).all() or not np.isfinite(norm).all() or (norm == 0).any():
            raise InputError(
                "A centre or normal is not finite, or a normal has no length; drop such entries."
            )
        unit = (normal / norm).astype(np.float32)
        for name, value in [
            ("centre_zyx", centre),
            ("score", score),
            ("normal_zyx", unit),
            ("kind", kind),
            ("rot_degrees", rot),
        ]:
            object.__setattr__(self, name, value)

    @classmethod
    def empty(
        cls,
        voxel_size_angstrom: float,
        tomogram_shape: tuple[int, int, int] | None = None,
        tomogram_name: str = "tomogram",
    ) -> Candidates:
        """No candidates at all, of a given tomogram."""
        none = np.zeros((0, 3), np.float32)
        return cls(none, np.zeros(0, np.float32), none, voxel_size_angstrom, tomogram_shape, tomogram_name)

    def __len__(self) -> int:
        return len(self.centre_zyx)

    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Candidates:
        """The candidates at `index` (a slice, indices or a boolean mask), in that order."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.ndim == 0:
                index = index[None]
        return replace(
            self,
            centre_zyx=self.centre_zyx[index],
            score=self.score[index],
            normal_zyx=self.normal_zyx[index],
            kind=self.kind[index],
            rot_degrees=self.rot_degrees[index],
        )

    @property
    def euler_zyz(self) -> FloatArray:
        """(n, 3) float32 degrees: RELION's rot, tilt, psi (see `euler_zyz_from_normal`)."""
        euler = euler_zyz_from_normal(self.normal_zyx)
        euler[:, 0] = self.rot_degrees
        return euler

    def sorted_by_score(self) -> Candidates:
        """The same candidates, highest score first; ties keep their order."""
        return self[np.argsort(-self.score, kind="stable")]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a candidate: z, y, x, score, normal_z, normal_y, normal_x, rot, tilt, psi, kind."""
        import pandas as pd

        columns: dict[str, Any] = dict(zip("zyx", self.centre_zyx.T, strict=True))
        columns["score"] = self.score
        columns |= dict(zip(("normal_z", "normal_y", "normal_x"), self.normal_zyx.T, strict=True))
        columns |= dict(zip(("rot", "tilt", "psi"), self.euler_zyz.T, strict=True))
        columns["kind"] = self.kind
        table: pd.DataFrame = pd.DataFrame(columns)
        return table
