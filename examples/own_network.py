"""
A network of one's own on every window
======================================

`score_windows` answers what a classifier would answer on every window of an image. A chain of convolutions,
poolings and linear layers is computed once for the whole image; any other network is run on windows in
batches.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

import t3ssfast as t3

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 4, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(4, 8, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(8 * 6 * 6, 16),
    nn.ReLU(),
    nn.Linear(16, 3),
).eval()
image = np.random.default_rng(0).normal(size=(120, 140)).astype(np.float32)
print(t3.explain_plan(network, image.shape, 1.0, "cpu", size=32))

start = time.perf_counter()
scores = t3.score_windows(network, image, size=32)
dense = time.perf_counter() - start

start = time.perf_counter()
windows = t3.unfold(image, 32)
with torch.inference_mode():
    answers = network(torch.from_numpy(windows)[:, None]).numpy()
one_by_one = time.perf_counter() - start

print(f"{len(windows)} windows, three classes: {scores.shape}")
difference = np.abs(scores.reshape(3, -1) - answers.T).max()
print(f"largest difference from the network on each window: {difference:.1e}")
print(f"{dense:.3f} s, and {one_by_one:.3f} s window by window")
