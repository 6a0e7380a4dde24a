"""t3ssfast finds type III secretion systems in cryo-electron tomograms.

``import t3ssfast as t3`` costs next to nothing: a public name is loaded when it is first used, PyTorch and
the native kernels with it.

Some functions share their name with the module they live in (``t3.detect``, ``t3.preselect``,
``t3.simulate``, ``t3.evaluate``, ``t3.export``, ``t3.extract``, ``t3.average``). As an attribute of the
package such a name is always the function; what else the module holds is imported from it:
``from t3ssfast.preselect import learn_rule``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from t3ssfast import errors
from t3ssfast.errors import T3Error

if TYPE_CHECKING:
    from t3ssfast._native import build_info
    from t3ssfast.average import Average, AverageConfig, average
    from t3ssfast.classify import score_windows
    from t3ssfast.detect import Detection, detect
    from t3ssfast.evaluate import Evaluation, evaluate
    from t3ssfast.export import export, load_candidates
    from t3ssfast.extract import extract
    from t3ssfast.io import read, write
    from t3ssfast.plan import explain_plan
    from t3ssfast.preselect import PreselectRule, preselect
    from t3ssfast.simulate import Simulation, simulate
    from t3ssfast.statistics import window_statistics
    from t3ssfast.train import train_classifier, train_segmenter, train_verifier
    from t3ssfast.types import Candidates, DetectConfig, Tomogram
    from t3ssfast.windows import unfold

__all__ = [
    "Average",
    "AverageConfig",
    "Candidates",
    "DetectConfig",
    "Detection",
    "Evaluation",
    "PreselectRule",
    "Simulation",
    "T3Error",
    "Tomogram",
    "average",
    "build_info",
    "detect",
    "errors",
    "evaluate",
    "explain_plan",
    "export",
    "extract",
    "load_candidates",
    "preselect",
    "read",
    "score_windows",
    "simulate",
    "train_classifier",
    "train_segmenter",
    "train_verifier",
    "unfold",
    "window_statistics",
    "write",
]

__version__ = "0.1.0"

_HOME = {
    "Average": "average",
    "AverageConfig": "average",
    "Candidates": "types",
    "DetectConfig": "types",
    "Detection": "detect",
    "Evaluation": "evaluate",
    "PreselectRule": "preselect",
    "Simulation": "simulate",
    "Tomogram": "types",
    "average": "average",
    "build_info": "_native",
    "detect": "detect",
    "evaluate": "evaluate",
    "explain_plan": "plan",
    "export": "export",
    "extract": "extract",
    "load_candidates": "export",
    "preselect": "preselect",
    "read": "io",
    "score_windows": "classify",
    "simulate": "simulate",
    "train_classifier": "train",
    "train_segmenter": "train",
    "train_verifier": "train",
    "unfold": "windows",
    "window_statistics": "statistics",
    "write": "io",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the import system from binding a module over the public function of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
