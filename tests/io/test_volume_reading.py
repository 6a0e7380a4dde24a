"""Reading of MRC files: all valid layouts, damaged headers, compression, memory and voxel sizes."""

from __future__ import annotations

import bz2
import gzip
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from mrc_files import SHAPE, header_bytes, ramp, write_mrc
from processes import search_path
from t3ssfast.errors import InputError, ReadError, T3Error, VoxelSizeError
from t3ssfast.io import read, release_pages, volume_layout, write
from t3ssfast.io.volumes.opening import open_tomogram
from t3ssfast.tomogram import Tomogram

MODES = [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")]
IMOD_STAMP = 1146047817


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "code"), MODES)
@pytest.mark.parametrize("extended", [b"", b"x" * 160])
def test_read_all_modes_byte_orders_and_extended_headers(tmp_path, mode, code, order, extended):
    array = ramp(code)
    tomogram = read(write_mrc(tmp_path / "a.mrc", array, order, extended, mode=mode))
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == 10.0
    assert tomogram.name == "a"


@pytest.mark.parametrize("machst", [(0x44, 0x41, 0, 0), (0, 0, 0, 0), (0x11, 0x11, 0, 0)])
def test_wrong_machine_stamp_is_ignored(tmp_path, machst):
    array = ramp("f4")
    path = write_mrc(tmp_path / "a.mrc", array, machst=machst)
    np.testing.assert_array_equal(read(path).data, array)


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 1, 3), (3, 1, 2), (1, 3, 2), (2, 3, 1), (3, 2, 1)])
def test_permuted_axes_are_read_as_zyx(tmp_path, axes):
    zyx = ramp("f4")
    columns, rows, sections = (3 - axis for axis in axes)  # axis 1 is x, the last of z, y, x
    stored = np.ascontiguousarray(zyx.transpose(sections, rows, columns))
    fields = {"mapc": axes[0], "mapr": axes[1], "maps": axes[2]}
    fields |= {"mx": 5, "my": 4, "mz": 3, "cella": (50.0, 40.0, 30.0)}
    path = write_mrc(tmp_path / "a.mrc", stored, **fields)
    np.testing.assert_array_equal(read(path).data, zyx)
    assert volume_layout(path).axes == "".join("xyz"[axis - 1] for axis in axes)


@pytest.mark.parametrize(("flags", "code"), [(0, "u1"), (1, "i1"), (4, "u1"), (5, "i1")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sign_of_bytes_follows_imod_stamp(tmp_path, flags, code, order):
    raw = np.array([0, 100, 127, 200, 255] * 12, np.uint8).reshape(SHAPE)
    extra = bytearray(84)
    struct.pack_into(f"{order}2i", extra, 40, IMOD_STAMP, flags)
    path = write_mrc(tmp_path / "a.rec", raw, order, mode=0, extra2=bytes(extra))
    np.testing.assert_array_equal(read(path).data, raw.view(code))


def test_packed_4_bit_integers_are_refused(tmp_path):
    extra = bytearray(84)
    struct.pack_into("<2i", extra, 40, IMOD_STAMP, 17)
    path = write_mrc(tmp_path / "a.rec", ramp("i1"), mode=0, extra2=bytes(extra))
    with pytest.raises(ReadError, match="4-bit"):
        read(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": 3}, "complex"),
        ({"mode": 4}, "complex"),
        ({"mode": 16}, "RGB"),
        ({"mode": 101}, "4-bit"),
        ({"mode": 77}, "mode 77"),
        ({"nx": 0}, "0 x 4 x 3"),
        ({"ny": -4}, "-4"),
        ({"mapc": 2}, "axis order"),
        ({"mapc": 4}, "axis order"),
        ({"nsymbt": -1}, "extended header"),
        ({"nsymbt": 2_000_000_000}, "truncated"),
        ({"nz": 4}, "80 are missing"),
        ({"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1}, "truncated"),
        ({"ispg": 401, "mz": 1}, "stack of volumes"),
        ({"ispg": 630, "mz": -7}, "stack of volumes"),
    ],
)
def test_invalid_header_raises_read_error(tmp_path, fields, message):
    (tmp_path / "a.mrc").write_bytes(bytes(header_bytes(**fields)) + ramp("f4").tobytes())
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path / "a.mrc")
    assert "\n" not in str(caught.value)


def test_stack_of_one_volume_is_read(tmp_path):
    array = ramp("f4")
    np.testing.assert_array_equal(read(write_mrc(tmp_path / "a.mrc", array, ispg=401)).data, array)


def test_header_without_axis_fields_is_read(tmp_path):
    array = ramp("f4")
    path = write_mrc(tmp_path / "a.mrc", array, mapc=0, mapr=0, maps=0, map=b"    ")
    np.testing.assert_array_equal(read(path).data, array)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cella": (0, 0, 0)}, "0.0"),
        ({"cella": (np.nan, 40, 30)}, "nan"),
        ({"cella": (-50, 40, 30)}, "-10"),
        ({"cella": (5e9, 4e9, 3e9)}, "1000000"),
        ({"mx": 0}, "nan"),
        ({"mz": -3}, "nan"),
        ({"cella": (5, 4, 3)}, "1 Angstrom"),
        ({"cella": (50, 44, 30)}, "differ"),
    ],
)
def test_unusable_voxel_size_raises_unless_given(tmp_path, fields, message):
    path = write_mrc(tmp_path / "a.mrc", ramp("f4"), **fields)
    with pytest.raises(VoxelSizeError, match=message) as caught:
        read(path)
    assert "voxel_size_angstrom" in str(caught.value)
    assert read(path, voxel_size_angstrom=13.6).voxel_size_angstrom == 13.6


def unusable_cells():
    """Yield 200 pairs of cell lengths and grid intervals that give no voxel size."""
    rng = np.random.default_rng(0)
    bad = [0.0, -0.0, np.nan, np.inf, -np.inf, -50.0, 1e-42, 1e-30, 1e30, 3.4e38]
    for number in range(200):
        lengths, intervals = [50.0, 40.0, 30.0], [5, 4, 3]
        axis = number % 3
        if number < 60:
            lengths[axis] = bad[number % len(bad)]
        elif number < 90:
            intervals[axis] = int(rng.choice([0, -1, -(2**31)]))
        elif number < 110:  # the placeholder 1 A
            lengths = [5.0, 4.0, 3.0]
        elif number < 160:
            lengths[axis] *= float(rng.choice([0.5, 0.98, 1.02, 3, 1000]))
        else:
            lengths = [float(rng.choice(bad)) for _ in range(3)]
        yield tuple(lengths), tuple(intervals)


def test_200_unusable_cells_raise_voxel_size_error(tmp_path):
    array = ramp("f4")
    for number, (lengths, (mx, my, mz)) in enumerate(unusable_cells()):
        path = write_mrc(tmp_path / "a.mrc", array, "<>"[number % 2], cella=lengths, mx=mx, my=my, mz=mz)
        with pytest.raises(VoxelSizeError, match="voxel_size_angstrom") as caught:
            read(path)
        assert str(caught.value).isprintable()
        np.testing.assert_array_equal(read(path, voxel_size_angstrom=13.6).data, array)


def test_invalid_given_voxel_size_raises(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", ramp("f4"))
    for size in (0, -1, float("nan"), 1e9):
        with pytest.raises(VoxelSizeError):
            read(path, voxel_size_angstrom=size)


def test_open_tomogram_accepts_paths_tomograms_and_arrays(tmp_path):
    array = ramp("f4")
    write(tmp_path / "a.mrc", array, 10.0)
    tomogram = open_tomogram(tmp_path / "a.mrc")
    assert open_tomogram(tomogram) is tomogram
    assert open_tomogram(tomogram, 13.6).voxel_size_angstrom == 13.6
    assert isinstance(open_tomogram(array, 13.6, "b"), Tomogram)
    with pytest.raises(VoxelSizeError):
        open_tomogram(array)
    with pytest.raises(InputError, match="list"):
        open_tomogram([[[1.0]]], 10.0)


# ------------------------------------------------------------------------------------------- memory mapping


def test_plain_file_is_mapped_read_only(tmp_path):
    tomogram = read(write_mrc(tmp_path / "a.mrc", ramp("f4")))
    base = tomogram.data
    while not isinstance(base, np.memmap):
        base = base.base
    with pytest.raises(ValueError, match="read-only"):
        tomogram.data[0, 0, 0] = 1


def test_release_pages_frees_memory(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 256, 256)).astype(np.float32)
    write(tmp_path / "map.mrc", values, 13.6)
    data = read(tmp_path / "map.mrc").data

    def resident_bytes():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    before = data.sum()
    touched = resident_bytes()
    release_pages(data)
    assert resident_bytes() < touched - values.nbytes // 2
    assert data.sum() == before
    release_pages(values)
    release_pages(values[::2].T)


def test_large_file_uses_no_memory(tmp_path):
    shape = (4096, 1024, 1024)  # 16 GiB, sparse
    path = tmp_path / "large.mrc"
    path.write_bytes(bytes(header_bytes(shape)))
    os.truncate(path, 1024 + 4 * np.prod(shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tomogram = read(path)
    assert tomogram.shape == shape
    assert tomogram.data[4095, 1023, 1023] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


# ---------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_files_are_detected_by_content(tmp_path, compress):
    array = ramp("i2")
    plain = write_mrc(tmp_path / "a.mrc", array, extended=b"y" * 80, mode=1).read_bytes()
    (tmp_path / "packed.mrc").write_bytes(compress(plain))
    np.testing.assert_array_equal(read(tmp_path / "packed.mrc").data, array)
    assert volume_layout(tmp_path / "packed.mrc").format == "MRC, compressed"
    (tmp_path / "longer.mrc").write_bytes(compress(plain + b"z" * 100))
    np.testing.assert_array_equal(read(tmp_path / "longer.mrc").data, array)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_damaged_compressed_files_raise_read_error(tmp_path, compress):
    plain = write_mrc(tmp_path / "a.mrc", ramp("i2"), extended=b"y" * 80, mode=1).read_bytes()
    (tmp_path / "short.mrc").write_bytes(compress(plain[:-30]))
    with pytest.raises(ReadError, match="30 are missing"):
        read(tmp_path / "short.mrc")
    (tmp_path / "no_header.mrc").write_bytes(compress(plain[:500]))
    with pytest.raises(ReadError, match="500 bytes"):
        read(tmp_path / "no_header.mrc")
    packed = compress(plain)
    (tmp_path / "truncated.mrc").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ReadError):
        read(tmp_path / "truncated.mrc")
    damaged = bytearray(compress(plain * 20))
    damaged[60:90] = bytes(30)
    (tmp_path / "damaged.mrc").write_bytes(damaged)
    with pytest.raises(ReadError):
        read(tmp_path / "damaged.mrc")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_decompression_bombs_use_little_memory(tmp_path, compress):
    zeros = bytes(64 << 20)
    for shape, message in ((SHAPE, None), ((50_000, 50_000, 50_000), "unpack"), ((512, 512, 300), "missing")):
        (tmp_path / "bomb.mrc").write_bytes(compress(bytes(header_bytes(shape)) + zeros))
        begin = time.process_time()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if message is None:
            assert read(tmp_path / "bomb.mrc").shape == SHAPE
        else:
            with pytest.raises(ReadError, match=message):
                read(tmp_path / "bomb.mrc")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000
        assert time.process_time() - begin < 5


# ----------------------------------------------------------------------------------- files of other projects


def test_files_of_other_projects_equal_mrcfile(data):
    expected = {
        "emd_3197.map": ((20, 20, 20), 11.4),
        "emd_3197.map.gz": ((20, 20, 20), 11.4),
        "emd_3197.map.bz2": ((20, 20, 20), 11.4),
        "blobs.rec": ((27, 32, 22), 19.31538),
        "membrane_16.rec": ((16, 16, 16), 19.73333),
    }
    for name, (shape, voxel_size) in expected.items():
        tomogram = read(data / name)
        assert tomogram.shape == shape
        assert tomogram.voxel_size_angstrom == pytest.approx(voxel_size, abs=1e-5)
        assert tomogram.name == name.split(".")[0]
        with mrcfile.open(data / name) as reference:
            np.testing.assert_array_equal(tomogram.data, reference.data)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.map", "empty"),
        ("short_of_its_header.map", "34279000 are missing"),
        ("relion5_particles.star", "shorter than an MRC header"),
        ("relion_one_loop.star", "not an MRC file"),
        ("imod_objects.mod", "not an MRC file"),
        ("nothing.mrc", "no file"),
        ("", "folder without Zarr"),
        ("bad\nname.mrc", "no file"),
    ],
)
def test_other_files_raise_read_error(data, name, message):
    with pytest.raises(ReadError, match=message) as caught:
        read(data / name)
    assert "\n" not in str(caught.value)


def test_special_files_and_invalid_paths_raise_read_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "a\0b", os.devnull, tmp_path / ("x" * 5000)):
        with pytest.raises(ReadError):
            read(path)
    if os.geteuid() != 0:
        path = write_mrc(tmp_path / "a.mrc", ramp("f4"))
        path.chmod(0)
        with pytest.raises(ReadError, match="permission"):
            read(path)


# ------------------------------------------------------------------------------------------- mutated headers


def test_mutated_headers_are_read_or_refused_quickly(tmp_path):
    rng = np.random.default_rng(0)
    array = ramp("f4")
    messages = []
    special = [0, 1, -1, 2, 3, 6, 12, 101, 401, 2**31 - 1, -(2**31), 1024, 2_000_000_000]
    path = tmp_path / "a.mrc"
    outcomes = {"read": 0, "refused": 0}
    for case in range(600):
        order = "<>"[case % 2]
        raw = header_bytes(order=order)
        for _ in range(rng.integers(1, 5)):
            if rng.random() < 0.7:
                offset = 4 * int(rng.integers(0, 56))
                struct.pack_into(order + "i", raw, offset, int(rng.choice(special)))
            else:
                raw[int(rng.integers(0, 1024))] = int(rng.integers(0, 256))
        content = bytes(raw) + array.tobytes()
        path.write_bytes(content[: int(rng.integers(0, len(content)))] if rng.random() < 0.1 else content)
        begin = time.process_time()
        try:
            tomogram = read(path)
            assert tomogram.data.nbytes <= len(content) - 1024
            float(tomogram.data[-1, -1, -1])
            outcomes["read"] += 1
        except T3Error as error:
            messages.append(str(error))
            outcomes["refused"] += 1
        assert time.process_time() - begin < 1
    assert min(outcomes.values()) > 50
    assert not any("\n" in message for message in messages)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads its own memory from /proc")
def test_mutated_files_are_read_with_little_memory(tmp_path, soak):
    """Run in a process that may use 64 MB more than after its start."""
    count = 10_000 if soak else 300
    script = Path(__file__).parent / "mutate_headers.py"
    done = subprocess.run(
        [sys.executable, script, str(count), "1", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": search_path()},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tomograms, refused, seconds = done.stdout.split()
    assert int(tomograms) + int(refused) == count
    assert min(int(tomograms), int(refused)) > count // 10
    assert float(seconds) < 1
