"""Peak memory and time of `detect()` on files of any size, made by tiling a simulated tomogram.

``python bench/memory_detect.py 512,1024,1024`` writes the file, runs the detection in a new process, and
prints the process's peak memory above that after its imports. Neighbouring copies are mirrored, so that
membranes continue across the seams. For several shapes, such as ``128,512,512 256,1024,1024``, the CPU time
of each is also compared with that of the first. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SIMULATED = (64, 256, 256)

CHILD = """
import json, sys, time
import t3ssfast as t3
from t3ssfast import detect
import torch, scipy.ndimage

def peak():
    # Unlike ru_maxrss of getrusage, this does not include the peak of the parent process.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

before, start, cpu = peak(), time.perf_counter(), time.process_time()
config = t3.DetectConfig(**json.loads(sys.argv[2]))
found = t3.detect(sys.argv[1], config=config, device="cpu", progress=False)
provenance = found.provenance
print(json.dumps({
    "imports_bytes": before, "above_bytes": peak() - before, "budget_bytes": config.memory_budget_bytes,
    "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
    "stages": provenance["seconds"], "counts": provenance["counts"],
    "engine": provenance["models"]["segmenter"]["engine"],
}))
"""


def write_tiled(path: Path, shape: tuple[int, ...], seed: int = 11) -> None:
    """Write a file of a shape slice by slice, so that it may be larger than the memory."""
    import mrcfile

    import t3ssfast as t3

    tomogram = t3.simulate(seed, [min(a, b) for a, b in zip(SIMULATED, shape, strict=True)]).tomogram
    index = [_mirrored_index(n, length) for n, length in zip(shape, tomogram.shape, strict=True)]
    with mrcfile.new_mmap(path, shape, mrc_mode=2, overwrite=True) as file:
        for z, source in enumerate(index[0]):
            file.data[z] = tomogram.data[source][index[1]][:, index[2]]
        file.voxel_size = tomogram.voxel_size_angstrom
        file.set_volume()


def _mirrored_index(count: int, length: int) -> np.ndarray:
    """Return `count` indices that run from 0 to length - 1, back, and so on."""
    period = np.r_[np.arange(length), np.arange(length)[::-1]]
    return np.resize(period, count)


def measure(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Run `detect()` on a file in a new process."""
    command = [sys.executable, "-c", CHILD, str(path), json.dumps(config)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "shapes", nargs="+", type=lambda text: tuple(int(n) for n in text.split(",")), help="z,y,x"
    )
    parser.add_argument("--config", type=json.loads, default={}, help="fields of DetectConfig, as JSON")
    parser.add_argument("--folder", type=Path, help="keep the volumes in this folder, and reuse those in it")
    options = parser.parse_args()
    cpu: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            path = (options.folder or Path(temporary)) / f"{'x'.join(map(str, shape))}.mrc"
            if not path.exists():
                write_tiled(path, shape)
            report = measure(path, options.config)
            print(json.dumps({"shape": shape, **report}, indent=2))
            gib = {name: report[f"{name}_bytes"] / 2**30 for name in ("imports", "above", "budget")}
            message = f"peak above the imports: {gib['above']:.3f} GiB, budget {gib['budget']:.3f} GiB"
            cpu.append(report["cpu_seconds"])
            share = math.prod(shape) / math.prod(options.shapes[0])
            if len(cpu) > 1:
                message += f"; {cpu[-1] / cpu[0]:.2f} times the processor time for {share:g} times the voxels"
            print(message, file=sys.stderr)
            assert gib["above"] <= gib["budget"], "the budget was exceeded"


if __name__ == "__main__":
    main()
