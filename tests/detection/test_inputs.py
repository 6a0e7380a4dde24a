"""Models are loaded when they must be, and no more often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3ssfast.detection import inputs as inputs_module
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import DetectionInputs
from t3ssfast.models import load_model
from t3ssfast.runtime.progress import Stages
from toy import VOXEL, save_toy_models


def open_inputs(**options: Any) -> DetectionInputs:
    volume = np.random.default_rng(0).normal(size=(4, 64, 64)).astype(np.float32)
    with Stages(False) as stages:
        return DetectionInputs.open(
            volume, DetectConfig(), stages, voxel_size_angstrom=VOXEL, device="cpu", **options
        )


def test_bundled_models_are_loaded_once_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(model: Any, *, model_kind: str, device: Any) -> Any:
        loaded.append(model_kind)
        return load_model(model, model_kind=model_kind, device=device)

    monkeypatch.setattr(inputs_module, "load_model", load)
    monkeypatch.setattr(inputs_module, "_bundled", {})
    with ThreadPoolExecutor(1) as thread, ThreadPoolExecutor(1) as other_thread:
        first, second = (thread.submit(open_inputs).result() for _ in range(2))
        assert sorted(loaded) == ["classifier", "segmenter", "verifier"]
        # Two detections at once must not share the engines of a segmenter.
        elsewhere = other_thread.submit(open_inputs).result()
    assert all(one is other for one, other in zip(first.models, second.models, strict=True))
    assert len(loaded) == 6
    assert not any(one is other for one, other in zip(first.models, elsewhere.models, strict=True))


def test_files_of_models_are_read_each_time(tmp_path: Path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    options = {"segmenter": segmenter, "classifier": classifier}
    first = open_inputs(**options)
    classifier.write_bytes(segmenter.read_bytes())
    with pytest.raises(Exception, match="segmenter"):
        open_inputs(**options)
    assert first.classifier.metadata.model_kind == "classifier"
