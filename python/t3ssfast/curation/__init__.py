"""Curation: folders of results, verdicts of a person on them, and the candidates to look at next."""

from __future__ import annotations

from t3ssfast.curation.precision import PrecisionEstimate, estimate_precision
from t3ssfast.curation.results import Results, find_results
from t3ssfast.curation.suggest import suggest
from t3ssfast.curation.verdicts import apply_verdicts
from t3ssfast.io.particles.curation import load_all_curations, load_curation, save_curation

__all__ = [
    "PrecisionEstimate",
    "Results",
    "apply_verdicts",
    "estimate_precision",
    "find_results",
    "load_all_curations",
    "load_curation",
    "save_curation",
    "suggest",
]
