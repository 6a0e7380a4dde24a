"""Fixtures of the command line's tests: a toy tomogram and toy models."""

from __future__ import annotations

import numpy as np
import pytest

from t3ssfast.candidates import Candidates
from t3ssfast.tomogram import Tomogram
from toy import Models, save_toy_models, toy_tomogram


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    segmenter, classifier = save_toy_models(tmp_path_factory.mktemp("models"))
    return {"segmenter": segmenter, "classifier": classifier}


@pytest.fixture(scope="module")
def world() -> tuple[Tomogram, Candidates, np.ndarray]:
    """Tomogram, true particles and membrane mask."""
    return toy_tomogram()
