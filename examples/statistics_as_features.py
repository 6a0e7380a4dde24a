"""
Statistics of windows as features for scikit-learn
==================================================

Which windows show a T3SS? A random forest on eight statistics of each window is a baseline that takes
seconds.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score

import t3ssfast as t3

SIZE = 12
STATISTICS = ("mean", "std", "skewness", "kurtosis", "min", "max", "median", "q05")


def features_and_labels(seed):
    """Return (M, 8) statistics of windows near the membrane, and whether there is a T3SS at their centre."""
    simulation = t3.simulate(seed=seed, shape=(32, 128, 128))
    features, labels = [], []
    for z in range(4, 28, 4):
        image = simulation.tomogram.data[z - 2 : z + 3].mean(axis=0)
        distance = np.full(image.shape, np.inf)
        y, x = np.indices(image.shape)
        for centre in simulation.truth.centre_zyx[np.abs(simulation.truth.centre_zyx[:, 0] - z) < 4]:
            distance = np.minimum(distance, np.hypot(y - centre[1], x - centre[2]))
        # The base of a T3SS is 12 to 15 nm from both membranes, 11 voxels.
        near = distance_transform_edt(simulation.membrane[z] == 0) < 14
        # Masks are indexed by the corner of a window, pictures by its centre.
        valid = (slice(SIZE // 2, SIZE // 2 + image.shape[0] - SIZE + 1),) * 2
        mask = np.ascontiguousarray(near[valid])
        if mask.any():
            features.append(t3.window_statistics(image, SIZE, STATISTICS, mask=mask).T)
            labels.append(distance[valid][mask] < 6)
    return np.concatenate(features), np.concatenate(labels)


pairs = [features_and_labels(seed) for seed in (3, 4)]
features, labels = (np.concatenate(parts)[::4] for parts in zip(*pairs, strict=True))
print(f"{len(features)} windows with {features.shape[1]} statistics; {labels.sum()} show a T3SS")
forest = RandomForestClassifier(40, class_weight="balanced", min_samples_leaf=10, random_state=0)
forest.fit(features, labels)

features, labels = features_and_labels(seed=5)
score = average_precision_score(labels, forest.predict_proba(features)[:, 1])
print(f"another tomogram: average precision {score:.2f}; at random it would be {labels.mean():.2f}")
for name, importance in zip(STATISTICS, forest.feature_importances_, strict=True):
    print(f"{name:10s} {importance:.2f}")
