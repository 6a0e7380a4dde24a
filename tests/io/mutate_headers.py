"""Reads mutated MRC files with little memory to spare; each must be a tomogram inside its file, or a T3Error.

`python mutate_headers.py COUNT SEED FOLDER` prints how many were read, how many refused, and the most seconds
of processor time that one took.
"""

from __future__ import annotations

import bz2
import gzip
import random
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from t3ssfast.errors import T3Error
from t3ssfast.io import read

SHAPE = (3, 4, 5)
# What is promised: the file's own size and this.
SPARE_BYTES = 64 << 20
SPECIAL = [*range(-1, 8), 12, 16, 17, 101, 400, 401, 630, 1024, 2**16, 2**31 - 1, -(2**31), 2 * 10**9]
FLOATS = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e-40, 1e38, -3.0, 1.0, 13.6]
WORDS = 56


def header(order: str, mode: int) -> bytearray:
    """A good one."""
    fields = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    nz, ny, nx = SHAPE
    fields["nx"], fields["ny"], fields["nz"] = fields["mx"], fields["my"], fields["mz"] = nx, ny, nz
    fields["cella"] = (nx * 10.0, ny * 10.0, nz * 10.0)
    fields["mode"], fields["ispg"], fields["map"] = mode, 1, b"MAP "
    fields["mapc"], fields["mapr"], fields["maps"] = 1, 2, 3
    fields["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    return bytearray(fields.tobytes())


def mutated(rng: random.Random) -> bytes:
    """A file with a damaged header, whole or cut, plain or packed, now and then with much behind it."""
    order = rng.choice("<>")
    raw = header(order, rng.choice([0, 1, 2, 6, 12]))
    for _ in range(rng.randint(0, 4)):
        choice = rng.random()
        if choice < 0.45:
            struct.pack_into(order + "i", raw, 4 * rng.randrange(WORDS), rng.choice(SPECIAL))
        elif choice < 0.6:
            struct.pack_into(order + "f", raw, 4 * rng.randrange(WORDS), rng.choice(FLOATS))
        elif choice < 0.7:  # sizes, which decide what is mapped
            struct.pack_into(order + "i", raw, 4 * rng.randrange(3), rng.choice([1, 1000, 2**20, 2**31 - 1]))
        elif choice < 0.8:  # the extended header
            struct.pack_into(order + "i", raw, 92, rng.choice([-1, 1, 80, 10**6, 2 * 10**9]))
        else:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    content = bytes(raw) + rng.randbytes(4 * 60)
    if rng.random() < 0.15:
        content = content[: rng.randrange(len(content))]
    packed = rng.random()
    if packed < 0.3:
        if rng.random() < 0.1:
            content += bytes(rng.choice([1, 16]) << 20)
        content = (gzip.compress if packed < 0.2 else bz2.compress)(content, 1)
        if rng.random() < 0.3:
            damaged = bytearray(content[: rng.randrange(4, len(content) + 1)])
            damaged[rng.randrange(4, len(damaged)) if len(damaged) > 4 else 0] ^= 0xFF
            content = bytes(damaged)
    return content


def bomb(shape: tuple[int, int, int], zeros: int) -> bytes:
    """A packed file that unpacks to much more than it is."""
    raw = header("<", 2)
    struct.pack_into("<3i", raw, 0, *shape[::-1])
    return gzip.compress(bytes(raw) + bytes(zeros), 9)


def main(count: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    path = folder / "mutated.mrc"
    files = [bomb((1024, 1024, 1024), 128 << 20), bomb((50_000,) * 3, 128 << 20), bomb(SHAPE, 128 << 20)]
    for pack in (bytes, gzip.compress, bz2.compress):  # what is imported on first use is no cost of a file
        path.write_bytes(pack(bytes(header("<", 2)) + bytes(240)))
        read(path)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + SPARE_BYTES, resource.RLIM_INFINITY))
    tomograms = refused = 0
    slowest = 0.0
    for number in range(count):
        content = files[number] if number < len(files) else mutated(rng)
        path.write_bytes(content)
        begin = time.process_time()
        try:
            tomogram = read(path)
            if tomogram.data.nbytes > 20 << 20:
                raise AssertionError(f"{tomogram.shape} is more than there was")
            float(tomogram.data[-1, -1, -1])
            tomograms += 1
            del tomogram
        except T3Error as error:
            if not str(error).isprintable():
                raise
            refused += 1
        if number >= len(files):
            slowest = max(slowest, time.process_time() - begin)
    print(tomograms, refused, f"{slowest:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
