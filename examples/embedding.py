"""
Kernels in another pipeline
===========================

Statistics and scores of the windows along a mask.

The script runs as it is, on an image of its own. Replace `image`, `mask` and `model` by yours.
"""

from __future__ import annotations

import numpy as np

import t3ssfast as t3
from t3ssfast.models import LeNet

SIZE = 50

# A slice of a tomogram, here noise with a dark disc, and a mask of the windows centred on the rim of the
# disc. A mask has one entry per valid window, indexed by the window's top-left corner.
y, x = np.mgrid[:200, :240]
radius = np.hypot(y - 100, x - 120)
image = np.random.default_rng(0).normal(size=radius.shape).astype(np.float32) - (radius < 60)
rim = np.abs(radius - 60) < 3
corner = slice(SIZE // 2, -(SIZE - SIZE // 2 - 1))
mask = rim[corner, corner]

features = t3.window_statistics(image, SIZE, ("mean", "std", "kurtosis", "median", "q95"), mask=mask)
print(f"{mask.sum()} of {mask.size} windows, {len(features)} statistics each: {features.shape}")

# Any TorchScript or nn.Module that maps (M, 1, 50, 50) to (M, classes).
model = LeNet().eval()
scores = t3.score_windows(model, image, mask=mask)
print(f"scores of the classifier: {scores.shape}")
print(t3.explain_plan(model, image.shape, float(mask.mean()), "cpu"))

# The pixels of the ten windows with the highest scores of the second class.
best = np.zeros(mask.shape, bool)
best.reshape(-1)[np.flatnonzero(mask)[np.argsort(-scores[:, 1])[:10]]] = True
windows = t3.unfold(image, SIZE, mask=best, normalise="zscore")
print(
    f"pixels of the best: {windows.shape}, mean {windows.mean():.2f}, standard deviation {windows.std():.2f}"
)
