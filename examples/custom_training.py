"""
A training of one's own
=======================

Train a smaller classifier with other augmentation, and search with it. Ten steps are only enough to see
that it runs: the default is a thousand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import t3ssfast as t3
from t3ssfast.models import load_model
from t3ssfast.training.options import AugmentOptions

# Yours: tomograms, picks (t3.load_candidates) and, if you have them, membrane masks.
simulations = [t3.simulate(seed=seed, shape=(32, 128, 128)) for seed in (3, 4)]

with tempfile.TemporaryDirectory() as folder:
    path = t3.train_classifier(
        [simulation.tomogram for simulation in simulations],
        [simulation.truth for simulation in simulations],
        [simulation.membrane for simulation in simulations],
        out=Path(folder) / "classifier.safetensors",
        channels=(4, 8),
        hidden=(32, 16),
        augment=AugmentOptions(noise=0.5, blur_px=0.8),
        steps=10,
        steps_per_epoch=5,
        batch=64,
        rounds=1,
        mined_slices=2,
    )
    print(sorted(file.name for file in Path(folder).iterdir()))
    model = load_model(path, model_kind="classifier")

print({name: round(value, 2) for name, value in model.metadata.metrics.items()})
new = t3.simulate(seed=6, shape=(32, 128, 128))
detection = t3.detect(new.tomogram, classifier=model, membrane=new.membrane, progress=False)
evaluation = t3.evaluate(detection.candidates, new.truth)
print(f"{len(detection.candidates)} candidates, {evaluation.true_positives} of {len(new.truth)} T3SS found")
