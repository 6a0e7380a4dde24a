"""Every default of a detection."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from t3ssfast.errors import ConfigError

if TYPE_CHECKING:
    pass
from t3ssfast.kernels.score_windows import PLANS, PRECISIONS
from t3ssfast.models.engines.engine import SEGMENTER_ENGINES

__all__ = ["DetectConfig"]


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
        require(self.plan in PLANS, "plan", " or ".join(PLANS))
        require(self.precision in PRECISIONS, "precision", " or ".join(PRECISIONS))
        require(
            self.segmenter_engine in SEGMENTER_ENGINES, "segmenter_engine", " or ".join(SEGMENTER_ENGINES)
        )
        require(self.memory_budget_bytes >= 64 << 20, "memory_budget_bytes", "at least 64 MiB")
        require(self.slab_slices is None or self.slab_slices >= 1, "slab_slices", "None, or 1 or more")
        require(self.threads is None or self.threads >= 1, "threads", "None, or 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, for provenance."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
