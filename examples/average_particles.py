"""
Average particles
=================

Align and average the particles at given positions, in two halves that never see each other.
"""

from __future__ import annotations

import matplotlib.pyplot as plt

import t3ssfast as t3

# Yours: paths of tomograms, and one `Candidates` for each (t3.load_candidates, or those of a detection).
simulations = [t3.simulate(seed=seed, shape=(40, 144, 144)) for seed in range(3, 7)]
average = t3.average(
    [simulation.tomogram for simulation in simulations],
    [simulation.truth for simulation in simulations],
    box=32,
    symmetry="C6",
    config=t3.AverageConfig(iterations=2),
)
summary = average.summary()
print(f"{summary['kept']} of {summary['particles']} particles in the average")
resolution = summary["resolution_angstrom"]
print("no resolution can be claimed" if resolution is None else f"resolution {resolution:.0f} Angstrom")

middle = average.map.shape[0] // 2
figure, (side, top) = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
side.imshow(-average.map[:, middle], cmap="gray", origin="lower")
side.set(title="along the axis", xticks=[], yticks=[])
top.imshow(-average.map[middle], cmap="gray")
top.set(title="across the axis", xticks=[], yticks=[])
plt.show()
