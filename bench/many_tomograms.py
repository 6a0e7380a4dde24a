"""What `detect_many` costs beyond the detections: tiny tomograms, one after another and on an engine.

    python bench/many_tomograms.py COUNT [local:N | slurm:N]

Prints the seconds of the detections themselves, the seconds for each tomogram beyond them, the memory of this
process, and the system calls on files where strace is there.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import t3ssfast as t3
from t3ssfast.cluster.slurm import SlurmOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from toy import VOXEL, save_toy_models

SHAPE = (4, 64, 64)
SERIAL = 50


def main(count: int, engine: str, folder: Path) -> None:
    """Write the tomograms, detect in a few by themselves and in all on the engine, and print the times."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=SHAPE).astype(np.float32)
    paths = [folder / "in" / f"TS_{number:04d}.mrc" for number in range(count)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        t3.write(path, np.roll(data, number, axis=2), VOXEL)
    segmenter, classifier = save_toy_models(folder)
    config = t3.DetectConfig(contrast="dark", segmenter_engine="torch")
    options = {"segmenter": segmenter, "classifier": classifier, "config": config, "device": "cpu"}
    kind, _, number = engine.partition(":")
    workers = int(number)
    executor = None
    if kind == "slurm":
        sbatch = {"cpus-per-task": "1", "mem": "1500M", "time": "60"}
        executor = SlurmOptions(parallel=workers, sbatch=sbatch, per_job=-(-count // workers))

    def run(out: str) -> tuple[float, t3.DetectionSummary]:
        began = time.perf_counter()
        summary = t3.detect_many(
            paths, folder / out, executor=executor, workers=workers, pictures=False, progress=True, **options
        )
        return time.perf_counter() - began, summary

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, summary = run("out")
    assert (summary.table["status"] == "done").all(), summary.failed
    # The first tomogram of each worker waits for its models.
    own = summary.table["seconds"].sort_values()[: count - workers]
    detections = float(own.sum()) / workers
    print(
        f"{count} tomograms on {engine}: {seconds:.1f} s, of which detections {detections:.1f} s in parallel"
    )
    print(
        f"median detection {own.median():.3f} s; beyond it {(seconds - detections) / count * workers:.3f} s"
    )
    again, summary = run("out")
    assert (summary.table["status"].isin(["skipped", "done"])).all()
    print(f"again, with nothing to do: {again:.1f} s, {again / count:.4f} s each")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory of this process: {before >> 10} MiB before, {after >> 10} MiB at most")
    files = sum(1 for _ in (folder / "out").rglob("*"))
    print(f"{files} files and folders, {files / count:.1f} each")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]), sys.argv[2], Path(temporary))
