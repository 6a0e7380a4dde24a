"""Every default of a detection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from t3ssfast.candidates import T3SS
from t3ssfast.errors import ConfigError
from t3ssfast.kernels.score_windows import PLANS, PRECISIONS
from t3ssfast.models.engines.engine import SEGMENTER_ENGINES

__all__ = ["ALL_KINDS", "DetectConfig"]

# The entry of `DetectConfig.kinds` that stands for every kind that the models tell apart.
ALL_KINDS = "all"


@dataclass(frozen=True)
class DetectConfig:
    """Options of a detection, and the only place where their defaults are.

    Parameters
    ----------
    contrast
        "dark" (protein dark, as reconstructed), "light", or "auto": the sign under which the segmenter finds
        more membrane.
    membrane_threshold
        Probability above which a voxel is reported as membrane, averaged with the neighbouring slices.
    search_threshold
        Probability above which a voxel counts as membrane for the search region and the poses, if lower: T3SS
        are also found on faint membrane.
    segmented_spacing_nm
        Largest distance of the slices that are segmented; the membrane probability of those between is
        interpolated. 0 segments every slice.
    membrane_min_area_nm2
        Smallest area of a connected component of the membrane, square nanometres.
    search_distance_nm
        Largest distance of a window's centre from the membrane. The centre of a T3SS base is 12-15 nm from
        each membrane, but membranes that face the beam are lost to the missing wedge, and T3SS in top view
        lie beyond the edge of the membrane that is left.
    search_enclosed
        Whether to search everything that the membrane of a cell encloses, seen along the beam, too: T3SS on
        the top and bottom of a large cell are far from the membrane that is left.
    preselect
        Whether a cheap filter excludes windows before the classifier.
    classified_spacing_nm
        Largest distance of the windows that are classified along y and x; the scores of those between are
        interpolated. 0 classifies every window, at stride 1; 3 takes a third of the time.
    score_smoothing_nm
        Sigma of the average of scores along z.
    verify
        Whether a verifier, where there is one, examines each candidate as a whole. The score then combines
        classifier and verifier, and the verifier corrects centre and pose.
    verify_floor
        Lowest uncalibrated score of the classifier that is shown to the verifier.
    kinds
        Kinds of particles that are reported, of those that the verifier tells apart: "t3ss",
        "flagellar_motor"; ("all",) reports all. A candidate's kind is the more probable one.
    score_threshold
        Lowest score of a reported candidate. Particles of tomograms unlike those of the calibration score
        lower: lower it where misses matter more than false candidates.
    min_precision, min_recall
        Instead of `score_threshold`: the lowest score above which the calibration expects at least this
        precision, or the highest above which it expects at least this recall. At most one of the two.
    max_fdr
        Instead of the above: the lowest threshold at which decoys in the tomogram itself promise at most this
        fraction of false candidates. Needs a verifier; takes twice as long for the verification.
    min_distance_nm
        Smallest distance of two candidates.
    max_candidates
        Largest number of candidates; the best are reported.
    plan, precision
        As for `score_windows`.
    segmenter_engine
        What runs the segmenter: "auto" (the fastest available), "torch", "torch-bfloat16", "torch-int8",
        "openvino" or "cuda-graphs".
    memory_budget_bytes
        Largest memory beyond the imports and the tomogram itself, where that is an array or a compressed
        file. Determines the thickness of slabs and the size of the segmenter's tiles.
    slab_slices
        Thickness of a slab, instead of that from the budget. Never changes results.
    threads
        OpenMP and PyTorch threads; None leaves both as they are.
    """

    contrast: str = "auto"
    membrane_threshold: float = 0.62
    search_threshold: float = 0.5
    segmented_spacing_nm: float = 3.0
    membrane_min_area_nm2: float = 5_000.0
    search_distance_nm: float = 36.0
    search_enclosed: bool = True
    preselect: bool = True
    classified_spacing_nm: float = 0.0
    score_smoothing_nm: float = 5.0
    verify: bool = True
    verify_floor: float = 0.15
    kinds: tuple[str, ...] = (T3SS,)
    score_threshold: float = 0.5
    min_precision: float | None = None
    min_recall: float | None = None
    max_fdr: float | None = None
    min_distance_nm: float = 24.0
    max_candidates: int = 10_000
    plan: str = "auto"
    precision: str = "float32"
    segmenter_engine: str = "auto"
    memory_budget_bytes: int = 2 << 30
    slab_slices: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        def require(valid: bool, name: str, expected: str) -> None:
            if not valid:
                raise ConfigError(f"DetectConfig.{name} is {getattr(self, name)!r}; give {expected}.")

        given: Any = self.kinds
        kinds = (
            (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
        )
        named = len(kinds) > 0 and all(isinstance(kind, str) and kind for kind in kinds)
        require(named, "kinds", 'kinds of particles, such as ("t3ss",) or ("all",)')
        object.__setattr__(self, "kinds", kinds)
        choices = {
            "contrast": ("auto", "dark", "light"),
            "plan": PLANS,
            "precision": PRECISIONS,
            "segmenter_engine": SEGMENTER_ENGINES,
        }
        for name, allowed in choices.items():
            require(getattr(self, name) in allowed, name, " or ".join(allowed))
        for name in ("membrane_threshold", "search_threshold", "verify_floor", "score_threshold"):
            require(0 <= getattr(self, name) <= 1, name, "a number from 0 to 1")
        for name in ("min_precision", "min_recall"):
            share = getattr(self, name)
            require(share is None or 0 < share <= 1, name, "None, or a share above 0, up to 1")
        if self.min_precision is not None and self.min_recall is not None:
            raise ConfigError(
                f"DetectConfig has min_precision {self.min_precision} and min_recall {self.min_recall}; "
                "give one of the two."
            )
        require(self.max_fdr is None or 0 < self.max_fdr < 1, "max_fdr", "None, or a rate above 0, below 1")
        if self.max_fdr is not None:
            default = type(self).score_threshold
            others = [n for n in ("min_precision", "min_recall") if getattr(self, n) is not None]
            others += ["score_threshold"] if self.score_threshold != default else []
            if others:
                raise ConfigError(
                    f"DetectConfig has max_fdr {self.max_fdr} and {others[0]} {getattr(self, others[0])}; "
                    "give one of the two."
                )
            require(self.verify, "verify", "True with max_fdr, whose decoys the verifier scores")
        for name in (
            "segmented_spacing_nm",
            "membrane_min_area_nm2",
            "search_distance_nm",
            "classified_spacing_nm",
            "score_smoothing_nm",
            "min_distance_nm",
        ):
            value = getattr(self, name)
            require(np.isfinite(value) and value >= 0, name, "a finite number, 0 or more")
        require(self.max_candidates >= 1, "max_candidates", "1 or more")
        require(self.memory_budget_bytes >= 64 << 20, "memory_budget_bytes", "at least 64 MiB")
        for name in ("slab_slices", "threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "None, or 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, for provenance."""
        return asdict(self)
