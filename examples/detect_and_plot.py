"""
Detect and plot
===============

Search a tomogram, and draw the candidates on the slice that shows most of them.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

import t3ssfast as t3

# Yours: detection = t3.detect("tomogram.mrc")
simulation = t3.simulate(seed=5, shape=(32, 128, 128))
tomogram = simulation.tomogram
detection = t3.detect(tomogram, progress=False)
candidates = detection.candidates
print(candidates.to_dataframe()[["z", "y", "x", "score"]].round(2))

slice_of_each = np.round(candidates.centre_zyx[:, 0]).astype(int)
z = int(np.bincount(slice_of_each).argmax()) if len(candidates) else tomogram.shape[0] // 2
shown = candidates[np.abs(candidates.centre_zyx[:, 0] - z) < 6]

figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
axes.imshow(tomogram.data[max(0, z - 2) : z + 3].mean(axis=0), cmap="gray")
axes.contour(detection.membrane[z], levels=[0.5], colors="tab:blue", linewidths=0.8)
_, y, x = shown.centre_zyx.T
_, dy, dx = shown.normal_zyx.T
axes.scatter(x, y, s=160, facecolors="none", edgecolors="tab:orange")
axes.quiver(x, y, dx, dy, angles="xy", color="tab:orange", width=0.004)
axes.set(title=f"slice {z}: {len(shown)} candidates", xticks=[], yticks=[])
plt.show()
