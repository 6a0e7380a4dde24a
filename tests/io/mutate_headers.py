"""Read mutated MRC files with little free memory: each must give a tomogram inside its file, or a T3Error.

Usage: ``python mutate_headers.py COUNT SEED FOLDER``. Prints the number of files read and refused, and the
maximum processor time of one file in seconds.
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

from mrc_files import SHAPE, header_bytes
from t3ssfast.errors import T3Error
from t3ssfast.io import read

# Memory beyond that of the process before the first file.
SPARE_BYTES = 64 << 20
INTEGERS = [*range(-1, 8), 12, 16, 17, 101, 400, 401, 630, 1024, 2**16, 2**31 - 1, -(2**31), 2 * 10**9]
SIZES = [1, 1000, 2**20, 2**31 - 1]
EXTENDED_HEADER_SIZES = [-1, 1, 80, 10**6, 2 * 10**9]
FLOATS = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e-40, 1e38, -3.0, 1.0, 13.6]
WORDS = 56


def mutated(rng: random.Random) -> bytes:
    """Return a file with a damaged header: complete or truncated, plain or compressed, or too long."""
    order = rng.choice("<>")
    raw = header_bytes(mode=rng.choice([0, 1, 2, 6, 12]), order=order)
    for _ in range(rng.randint(0, 4)):
        choice = rng.random()
        if choice < 0.45:
            struct.pack_into(order + "i", raw, 4 * rng.randrange(WORDS), rng.choice(INTEGERS))
        elif choice < 0.6:
            struct.pack_into(order + "f", raw, 4 * rng.randrange(WORDS), rng.choice(FLOATS))
        elif choice < 0.7:
            struct.pack_into(order + "i", raw, 4 * rng.randrange(3), rng.choice(SIZES))
        elif choice < 0.8:
            struct.pack_into(order + "i", raw, 92, rng.choice(EXTENDED_HEADER_SIZES))
        else:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    content = bytes(raw) + rng.randbytes(4 * 60)
    if rng.random() < 0.15:
        content = content[: rng.randrange(len(content))]
    compression = rng.random()
    if compression < 0.3:
        if rng.random() < 0.1:
            content += bytes(rng.choice([1, 16]) << 20)
        content = (gzip.compress if compression < 0.2 else bz2.compress)(content, 1)
        if rng.random() < 0.3:
            damaged = bytearray(content[: rng.randrange(4, len(content) + 1)])
            damaged[rng.randrange(4, len(damaged)) if len(damaged) > 4 else 0] ^= 0xFF
            content = bytes(damaged)
    return content


def decompression_bomb(shape: tuple[int, int, int]) -> bytes:
    """Return a small gzip file that decompresses to 128 MB."""
    return gzip.compress(bytes(header_bytes(shape)) + bytes(128 << 20), 9)


def main(count: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    path = folder / "mutated.mrc"
    bombs = [decompression_bomb(shape) for shape in ((1024, 1024, 1024), (50_000,) * 3, SHAPE)]
    for compress in (bytes, gzip.compress, bz2.compress):  # load all modules before the limit is set
        path.write_bytes(compress(bytes(header_bytes()) + bytes(240)))
        read(path)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + SPARE_BYTES, resource.RLIM_INFINITY))
    tomograms = refused = 0
    slowest = 0.0
    for number in range(count):
        path.write_bytes(bombs[number] if number < len(bombs) else mutated(rng))
        begin = time.process_time()
        try:
            tomogram = read(path)
            if tomogram.data.nbytes > 20 << 20:
                raise AssertionError(f"{tomogram.shape} is larger than the file")
            float(tomogram.data[-1, -1, -1])
            tomograms += 1
            del tomogram
        except T3Error as error:
            if not str(error).isprintable():
                raise
            refused += 1
        if number >= len(bombs):
            slowest = max(slowest, time.process_time() - begin)
    print(tomograms, refused, f"{slowest:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
