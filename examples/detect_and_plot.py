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
simulation = t3.simulate(seed=8, shape=(48, 192, 192))
tomogram = simulation.tomogram
detection = t3.detect(tomogram, progress=False)
candidates = detection.candidates
print(candidates.to_dataframe()[["z", "y", "x", "score"]].to_string(float_format="%.2f"))

# The slice that has most candidates at most five slices above or below it.
distance = np.abs(np.arange(tomogram.shape[0])[:, None] - candidates.centre_zyx[:, 0])
z = int((distance <= 5).sum(axis=1).argmax())
shown = candidates[distance[z] <= 5]

figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
axes.imshow(tomogram.data[max(0, z - 2) : z + 3].mean(axis=0), cmap="gray")
axes.contour(detection.membrane[z], levels=[0.5], colors="tab:blue", linewidths=0.8)
_, y, x = shown.centre_zyx.T
_, dy, dx = shown.normal_zyx.T
axes.scatter(x, y, s=160, facecolors="none", edgecolors="tab:orange")
axes.quiver(x, y, dx, dy, angles="xy", color="tab:orange", width=0.004)
axes.set(title=f"slice {z}: {len(shown)} of {len(candidates)} candidates", xticks=[], yticks=[])
plt.show()
