"""
Several tomograms at a time
===========================

Each tomogram is searched in a process of its own; the processes share the cores. Any executor with `map` of
`concurrent.futures` takes the place of the one here.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import t3ssfast as t3
from t3ssfast.detection import run_to_folder


def main() -> None:
    """Simulate two tomograms, and search them in two processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, results = [], []
        for seed in (1, 2):
            paths.append(folder / f"TS_0{seed}.mrc")
            results.append(folder / "results" / f"TS_0{seed}")
            simulation = t3.simulate(seed=seed, shape=(24, 112, 112))
            t3.write(paths[-1], simulation.tomogram.data, simulation.tomogram.voxel_size_angstrom)

        search = partial(run_to_folder, config=t3.DetectConfig(threads=1), progress=False)
        # Processes are spawned: a forked copy of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(search, results, paths))

        for result in results:
            candidates = t3.load_candidates(result / "candidates.csv")
            print(f"{result.name}: {len(candidates)} candidates")


if __name__ == "__main__":
    main()
