"""Peak memory and time of detect(), for files of any size made by tiling a simulated tomogram.

``python bench/memory_detect.py 512,1024,1024`` writes the file, looks through it in a process of
its own, and says how far that process's peak lay above what it had after its imports. A copy is turned over
from its neighbours, so that membranes run on across the seams. Of several shapes it also says what each costs
over the first, for as many voxels: ``128,512,512 256,1024,1024``. Linux only.
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
    # Unlike that of getrusage, this one does not begin with what the parent had.
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
    """A file of that shape, slice by slice, so that it may be larger than the memory."""
    import mrcfile

    import t3ssfast as t3

    tomogram = t3.simulate(seed, [min(a, b) for a, b in zip(SIMULATED, shape, strict=True)]).tomogram
    index = [_to_and_fro(n, length) for n, length in zip(shape, tomogram.shape, strict=True)]
    with mrcfile.new_mmap(path, shape, mrc_mode=2, overwrite=True) as file:
        for z, source in enumerate(index[0]):
            file.data[z] = tomogram.data[source][index[1]][:, index[2]]
        file.voxel_size = tomogram.voxel_size_angstrom
        file.set_volume()


def _to_and_fro(count: int, length: int) -> np.ndarray:
    """0 ... length - 1, back again, and so on, `count` of them."""
    there_and_back = np.r_[np.arange(length), np.arange(length)[::-1]]
    return np.resize(there_and_back, count)


def measure(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Run detect() on a file in a fresh process."""
    command = [sys.executable, "-c", CHILD, str(path), json.dumps(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "shapes", nargs="+", type=lambda text: tuple(int(n) for n in text.split(",")), help="z,y,x"
    )
    parser.add_argument("--config", type=json.loads, default={}, help="fields of DetectConfig, as JSON")
    parser.add_argument(
        "--folder", type=Path, help="keep the volumes here, and use those that are there already"
    )
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
            told = f"peak above the imports: {gib['above']:.3f} GiB, budget {gib['budget']:.3f} GiB"
            cpu.append(report["cpu_seconds"])
            share = math.prod(shape) / math.prod(options.shapes[0])
            if len(cpu) > 1:
                told += f"; {cpu[-1] / cpu[0]:.2f} times the processor time for {share:g} times the voxels"
            print(told, file=sys.stderr)
            assert gib["above"] <= gib["budget"], "the budget was exceeded"


if __name__ == "__main__":
    main()
