"""A whole detection by this version of t3ssfast against another one, in processes that take turns.

    python bench/compare_detect.py OTHER --seeds 1 2 3 --rounds 3

OTHER is a folder that holds another version's package ``t3ssfast``, such as ``pip install --target`` makes.
Tomograms are simulated by this version and searched by both, with default options. The table has the least
seconds of each stage over the rounds, the sum of which is not the total: stages of the other version may have
other names. This version must find T3SS with an F1 that is at least the other's, over all tomograms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import t3ssfast as t3

THRESHOLD, TOLERANCE_ANGSTROM = 0.5, 120.0

# Uses nothing but what both versions offer.
WORKER = """
import json, sys, time
import numpy as np
import torch
import t3ssfast as t3

path, voxel_size, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
volume = np.load(path)
began, cpu = time.perf_counter(), time.process_time()
result = t3.detect(volume, voxel_size_angstrom=voxel_size, progress=False)
total, cpu = time.perf_counter() - began, time.process_time() - cpu
candidates = result.candidates
print(json.dumps({
    "version": t3.__file__, "total": total, "processor": cpu, "stages": dict(result.provenance["seconds"]),
    "centre": candidates.centre_zyx.tolist(), "score": candidates.score.tolist(),
}))
"""


def search(package: Path, tomogram: Path, voxel_size: float, threads: int) -> dict[str, Any]:
    """Search a tomogram by the version in a folder, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_WAIT_POLICY": "passive"}
    arguments = [sys.executable, "-c", WORKER, str(tomogram), str(voxel_size), str(threads)]
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(answer["version"]).is_relative_to(package.resolve()), answer["version"]
    return answer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 384, 384))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packages = {"other": options.other, "this": Path(t3.__file__).parent.parent}
    least: dict[str, dict[str, list[float]]] = {name: {} for name in packages}
    found: dict[str, list[t3.Candidates]] = {name: [] for name in packages}
    truth = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            simulated = t3.simulate(seed, options.shape)
            truth.append(simulated.truth)
            path, tomogram = Path(folder) / f"{seed}.npy", simulated.tomogram
            np.save(path, tomogram.data)
            answers: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
            for _ in range(options.rounds):
                for name, package in packages.items():
                    answers[name].append(search(package, path, tomogram.voxel_size_angstrom, options.threads))
            for name, runs in answers.items():
                rows = [{"total": r["total"], "processor time": r["processor"], **r["stages"]} for r in runs]
                for row in rows[0]:
                    least[name].setdefault(row, []).append(min(r.get(row, 0.0) for r in rows))
                centre = np.array(runs[0]["centre"], np.float32).reshape(-1, 3)
                score = np.array(runs[0]["score"], np.float32)
                place = (tomogram.voxel_size_angstrom, tomogram.shape, "compared")
                every = t3.Candidates(centre, score, np.tile([1.0, 0.0, 0.0], (len(score), 1)), *place)
                found[name].append(every[every.score >= THRESHOLD])
    f1 = {name: t3.evaluate(found[name], truth, TOLERANCE_ANGSTROM).f1 for name in packages}
    print(f"F1: other {f1['other']:.3f}, this {f1['this']:.3f}; seconds, means over {len(truth)} tomograms")
    print(f"{'':16}{'other':>8}{'this':>8}{'ratio':>8}")
    for row in dict.fromkeys([*least["other"], *least["this"]]):
        other, this = (float(np.mean(least[name].get(row, [0.0]))) for name in ("other", "this"))
        ratio = f"{other / this:8.2f}" if this > 0.005 and other > 0 else ""
        print(f"{row:16}{other:8.2f}{this:8.2f}{ratio}")
    assert f1["this"] >= f1["other"], f1


if __name__ == "__main__":
    main()
