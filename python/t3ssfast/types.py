"""The nouns: a tomogram, the candidates found in it, and the defaults of a detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from t3ssfast.errors import ConfigError, InputError, VoxelSizeError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SEGMENTER_ENGINES",
    "Candidates",
    "DetectConfig",
    "Tomogram",
    "check_voxel_size",
    "euler_zyz_from_normal",
    "normal_from_euler_zyz",
]

FloatArray = npt.NDArray[np.float32]

# What can compute a segmenter's answers; "auto" is the fastest that is there.
SEGMENTER_ENGINES = ("auto", "torch", "openvino", "cuda-graphs")

# Voxels of a usable tomogram lie far inside these bounds; outside them the header is nonsense.
MIN_VOXEL_SIZE_ANGSTROM = 0.5
MAX_VOXEL_SIZE_ANGSTROM = 200.0


def check_voxel_size(value: object, *, source: str) -> float:
    """Return `value` as a float if it can be a voxel size in Angstrom.

    Parameters
    ----------
    value
        Number to check.
    source
        Where it came from, for the message (a file's name, "voxel_size_angstrom" ...).

    Raises
    ------
    VoxelSizeError
        If it is not a finite number between 0.5 and 200 A.
    """
    try:
        size = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        size = float("nan")
    if not MIN_VOXEL_SIZE_ANGSTROM <= size <= MAX_VOXEL_SIZE_ANGSTROM:
        raise VoxelSizeError(
            f"{source}: the voxel size is {value!r}, not a length between {MIN_VOXEL_SIZE_ANGSTROM:g} and "
            f"{MAX_VOXEL_SIZE_ANGSTROM:g} Angstrom; give it as voxel_size_angstrom (--voxel-size)."
        )
    return size


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
class Tomogram:
    """A volume and what one voxel of it measures.

    Parameters
    ----------
    data
        (z, y, x) array, any real dtype; may be memory-mapped. Never copied whole by the stages.
    voxel_size_angstrom
        Edge of a voxel.
    name
        The tomogram's name in star files; text, leading zeros kept.
    """

    data: npt.NDArray[Any]
    voxel_size_angstrom: float
    name: str = "tomogram"

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise InputError(
                f"{self.name}: a tomogram has 3 axes (z, y, x), but the array has shape "
                f"{tuple(self.data.shape)}; give one volume."
            )
        size = check_voxel_size(self.voxel_size_angstrom, source=self.name)
        object.__setattr__(self, "voxel_size_angstrom", size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxels."""
        z, y, x = self.data.shape
        return int(z), int(y), int(x)


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


@dataclass(frozen=True)
class DetectConfig:
    """Every default of a detection, in one place.

    Parameters
    ----------
    contrast
        "dark" (protein dark, as reconstructed), "light", or "auto": the sign under which the
        segmenter sees more membrane.
    membrane_threshold
        Probability, averaged with the neighbouring slices', above which a voxel is membrane.
    search_threshold
        The same above which a voxel counts as membrane for what to search and how T3SS stand, where it is the
        lower: T3SS stand on faint membrane too.
    membrane_min_area_nm2
        Connected membrane pieces with less surface than this are dropped.
    search_distance_nm
        Windows are judged when their centre lies within this distance of the membrane. The centre of a T3SS
        base lies between the two membranes, 12-15 nm from each; but where they face the beam the missing
        wedge has taken them, and T3SS seen from the top stand beyond the edge of the membrane that is left.
    search_enclosed
        Whether windows are judged also wherever the membrane of a cell encloses them, seen along the beam:
        T3SS on a large cell's top and bottom are farther from the membrane that is left than any distance.
    preselect
        Whether the statistics of a window may rule it out before the classifier sees it.
    score_smoothing_nm
        Sigma along z over which the scores of neighbouring slices are averaged.
    verify
        Whether a verifier, where there is one, looks at each candidate as a whole: the score is then what it
        and the classifier agree on, and the centre where it sees it.
    verify_floor
        Score of the classifier, before any calibration, from which on peaks are shown to the verifier.
    score_threshold
        Candidates below this score are not reported. Particles of tomograms unlike those of the calibration
        score lower: give less where what is missed is lost and false candidates can be weeded later.
    min_precision, min_recall
        Instead of the threshold: the lowest score above which the classifier's calibration expects at least
        this precision, or the highest above which it expects at least this recall. One of the two at most.
    min_distance_nm
        Two candidates are never closer than this.
    max_candidates
        At most so many are reported, the best ones.
    plan, precision
        Passed to `score_windows`.
    segmenter_engine
        What runs the segmenter: "auto" (the fastest that is there), "torch", "openvino" or "cuda-graphs".
    memory_budget_bytes
        Bound on the memory that a detection takes beyond the imports and the tomogram itself, where that is
        an array or a compressed file; sets the thickness of the slabs and the size of the segmenter's tiles.
    slab_slices
        Thickness of a slab, instead of the one that follows from the budget. Never changes results.
    threads
        OpenMP and PyTorch threads; None leaves both as they are.
    """

    contrast: str = "auto"
    membrane_threshold: float = 0.6
    search_threshold: float = 0.5
    membrane_min_area_nm2: float = 5_000.0
    search_distance_nm: float = 36.0
    search_enclosed: bool = True
    preselect: bool = True
    score_smoothing_nm: float = 5.0
    verify: bool = True
    verify_floor: float = 0.15
    score_threshold: float = 0.5
    min_precision: float | None = None
    min_recall: float | None = None
    min_distance_nm: float = 24.0
    max_candidates: int = 10_000
    plan: str = "auto"
    precision: str = "float32"
    segmenter_engine: str = "auto"
    memory_budget_bytes: int = 2 << 30
    slab_slices: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, wanted: str) -> None:
            if not ok:
                raise ConfigError(f"DetectConfig.{name} is {getattr(self, name)!r}; give {wanted}.")

        require(self.contrast in ("auto", "dark", "light"), "contrast", '"auto", "dark" or "light"')
        for name in ("membrane_threshold", "search_threshold", "verify_floor", "score_threshold"):
            require(0 <= getattr(self, name) <= 1, name, "a number from 0 to 1")
        for name in ("min_precision", "min_recall"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, "None, or a share above 0, up to 1")
        if self.min_precision is not None and self.min_recall is not None:
            raise ConfigError(
                f"DetectConfig has min_precision {self.min_precision} and min_recall {self.min_recall}; give "
                f"one of the two."
            )
        for name in ("membrane_min_area_nm2", "search_distance_nm", "score_smoothing_nm", "min_distance_nm"):
            value = getattr(self, name)
            require(np.isfinite(value) and value >= 0, name, "a finite number, 0 or more")
        require(self.max_candidates >= 1, "max_candidates", "1 or more")
        require(self.plan in ("auto", "windows", "dense"), "plan", '"auto", "windows" or "dense"')
        require(
            self.precision in ("float32", "tf32", "bfloat16"), "precision", '"float32", "tf32" or "bfloat16"'
        )
        require(
            self.segmenter_engine in SEGMENTER_ENGINES, "segmenter_engine", " or ".join(SEGMENTER_ENGINES)
        )
        require(self.memory_budget_bytes >= 64 << 20, "memory_budget_bytes", "at least 64 MiB")
        require(self.slab_slices is None or self.slab_slices >= 1, "slab_slices", "None, or 1 or more")
        require(self.threads is None or self.threads >= 1, "threads", "None, or 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, for provenance."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
