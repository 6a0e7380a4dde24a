"""Compare how the classifier's negatives are drawn: at random, by statistics, and with mining.

Trains classifiers on simulated tomograms after equal numbers of steps, and measures the average precision of
their candidates (given membranes, no verifier) in other tomograms of the package's simulator and of the
independent one in tests/. Prints a table; `--json FILE` keeps every run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import t3ssfast as t3
from other_simulator import other_tomogram
from t3ssfast.io import atomic_path
from t3ssfast.simulation.simulate import random_physics
from t3ssfast.training import train_classifier
from t3ssfast.training.calibrate import find_candidates

SHAPE = (64, 256, 256)
TOLERANCE_ANGSTROM = 120.0
# How negatives are drawn, and rounds of mining.
VARIANTS = {
    "random": {"negatives": "random", "rounds": 0},
    "statistics": {"negatives": "statistics", "rounds": 0},
    "random, mined": {"negatives": "random", "rounds": 1},
    "statistics, mined": {"negatives": "statistics", "rounds": 1},
}
Labelled = tuple[t3.Tomogram, Any, t3.Candidates]


def simulated(seed: int, widen: float) -> Labelled:
    """Simulate a tomogram of random physics with T3SS and look-alikes."""
    rng = np.random.default_rng([seed, 77])
    physics = random_physics(rng, widen=widen, cell_radius_nm=float(rng.uniform(110, 200)))
    made = t3.simulate(seed, SHAPE, 13.6, **physics.to_dict())
    return made.tomogram, made.membrane, made.truth


def independent(seed: int) -> Labelled:
    """Simulate a tomogram with the other simulator."""
    made = other_tomogram(seed, shape=(96, 224, 224), voxel_nm=1.3, t3ss_per_cell=8, signal_to_noise=0.5)
    return made.tomogram, made.membrane.astype(np.uint8), made.truth


def average_precision(classifier: Path, examples: list[Labelled]) -> float:
    """Measure the average precision of a classifier's candidates, pooled over tomograms."""
    tomograms, membranes, truth = (list(part) for part in zip(*examples, strict=True))
    found = find_candidates(
        classifier,
        tomograms,
        membranes=membranes,
        config=t3.DetectConfig(contrast="dark"),
        contrasts=["dark"] * len(tomograms),
        device="cpu",
    )
    return t3.evaluate(found, truth, TOLERANCE_ANGSTROM).average_precision


def main() -> None:
    """Train, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 450])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tomograms", type=int, default=8)
    parser.add_argument("--measured", type=int, default=4)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    training = [simulated(41_000_000 + k, 0.0) for k in range(given.tomograms)]
    sets = {
        "own": [simulated(42_000_000 + k, 0.25) for k in range(given.measured)],
        "other": [independent(430 + k) for k in range(given.measured)],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in given.steps:
            for seed in range(given.seeds):
                for name, options in VARIANTS.items():
                    began = time.perf_counter()
                    # Equal steps in all: a round of mining shares them with the first round.
                    share = steps // (options["rounds"] + 1)
                    path = train_classifier(
                        [one[0] for one in training],
                        [one[2] for one in training],
                        [one[1] for one in training],
                        Path(folder) / "classifier.safetensors",
                        contrast="dark",
                        seed=seed,
                        steps=share,
                        steps_per_epoch=share,
                        negatives_per_tomogram=700,
                        mined_per_tomogram=200,
                        mined_slices=10,
                        progress=False,
                        **options,
                    )
                    row = {"steps": steps, "seed": seed, "negatives": name}
                    row |= {key: average_precision(path, examples) for key, examples in sets.items()}
                    rows.append(row | {"seconds": round(time.perf_counter() - began, 1)})
                    print(rows[-1], file=sys.stderr, flush=True)
    print("| steps | negatives | own simulator | other simulator |\n|---:|---|---:|---:|")
    for steps in given.steps:
        for name in VARIANTS:
            chosen = [row for row in rows if row["steps"] == steps and row["negatives"] == name]
            own, other = (np.mean([row[key] for row in chosen]) for key in sets)
            print(f"| {steps} | {name} | {own:.3f} | {other:.3f} |")
    if given.json:
        with atomic_path(given.json) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
