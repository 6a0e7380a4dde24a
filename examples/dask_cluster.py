"""
Many tomograms on a dask cluster
================================

`detect_many` gives each tomogram to a worker of a dask cluster. The cluster here is two processes of this
machine; a client of dask-jobqueue, Kubernetes or a running scheduler takes its place as it is. The workers
need the package (`pip install 't3ssfast[dask]'`) and the same paths.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from distributed import Client, LocalCluster

import t3ssfast as t3


def main() -> None:
    """Simulate three tomograms, and search them on a cluster of two workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for seed in (3, 4, 5):
            paths.append(folder / f"TS_0{seed}.mrc")
            simulation = t3.simulate(seed=seed, shape=(24, 112, 112))
            t3.write(paths[-1], simulation.tomogram.data, simulation.tomogram.voxel_size_angstrom)

        # Without the pages on which dask shows its work; nothing listens beyond this machine.
        options = {"dashboard_address": None, "worker_dashboard_address": "127.0.0.1:0"}
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **options) as cluster,
            Client(cluster) as client,
        ):
            summary = t3.detect_many(paths, folder / "results", executor=client, progress=False)

        print(summary.table[["tomogram", "status", "candidates"]].to_string(index=False))
        # A tomogram that cannot be searched costs its own row only; a second call tries it again.
        print(f"{len(summary.failed)} failed")

        for candidates in t3.load_all_candidates(folder / "results" / "candidates.star"):
            print(candidates.tomogram_name, candidates.to_dataframe()["score"].round(2).to_list())


if __name__ == "__main__":
    main()
