"""Reading every legal layout, refusing the rest in one sentence, and writing whole files or none."""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
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
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mrcfile.dtypes import HEADER_DTYPE

from processes import search_path
from t3ssfast.errors import InputError, OutputError, ReadError, T3Error, VoxelSizeError
from t3ssfast.io import (
    atomic_path,
    display_path,
    file_sha256,
    read,
    release_pages,
    results_folder,
    tomogram_name,
    write,
)

SHAPE = (3, 4, 5)


def header_bytes(shape=SHAPE, mode=2, order="<", voxel=10.0, **fields):
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, nz
    header["cella"] = (nx * voxel, ny * voxel, nz * voxel)
    header["mode"] = mode
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = 1
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    for name, value in fields.items():
        header[name] = value
    return bytearray(header.tobytes())


def save(path, array, order="<", extended=b"", **fields):
    fields.setdefault("nsymbt", len(extended))
    header = header_bytes(array.shape, order=order, **fields)
    path.write_bytes(bytes(header) + extended + array.astype(array.dtype.newbyteorder(order)).tobytes())
    return path


def values(dtype, shape=SHAPE):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


MODES = [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "code"), MODES)
@pytest.mark.parametrize("extended", [b"", b"x" * 160])
def test_modes_byte_orders_and_extended_headers(tmp_path, mode, code, order, extended):
    array = values(code)
    tomogram = read(save(tmp_path / "a.mrc", array, order, extended, mode=mode))
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == 10.0
    assert tomogram.name == "a"


@pytest.mark.parametrize("machst", [(0x44, 0x41, 0, 0), (0, 0, 0, 0), (0x11, 0x11, 0, 0)])
def test_a_wrong_machine_stamp_does_not_matter(tmp_path, machst):
    array = values("f4")
    path = save(tmp_path / "a.mrc", array, machst=machst)
    np.testing.assert_array_equal(read(path).data, array)


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 1, 3), (3, 1, 2), (1, 3, 2), (2, 3, 1), (3, 2, 1)])
def test_permuted_axes_come_back_as_zyx(tmp_path, axes):
    zyx = values("f4")
    columns, rows, sections = (3 - axis for axis in axes)  # axis 1 is x, the last of z, y, x
    stored = np.ascontiguousarray(zyx.transpose(sections, rows, columns))
    fields = {"mapc": axes[0], "mapr": axes[1], "maps": axes[2]}
    fields |= {"mx": 5, "my": 4, "mz": 3, "cella": (50.0, 40.0, 30.0)}
    tomogram = read(save(tmp_path / "a.mrc", stored, **fields))
    np.testing.assert_array_equal(tomogram.data, zyx)


@pytest.mark.parametrize(("flags", "code"), [(0, "u1"), (1, "i1"), (4, "u1"), (5, "i1")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_of_imod_are_signed_as_its_stamp_says(tmp_path, flags, code, order):
    raw = np.array([0, 100, 127, 200, 255] * 12, np.uint8).reshape(SHAPE)
    extra = bytearray(84)
    struct.pack_into(f"{order}2i", extra, 40, 1146047817, flags)
    path = save(tmp_path / "a.rec", raw, order, mode=0, extra2=bytes(extra))
    np.testing.assert_array_equal(read(path).data, raw.view(code))


def test_packed_nibbles_of_imod_are_refused(tmp_path):
    extra = bytearray(84)
    struct.pack_into("<2i", extra, 40, 1146047817, 17)
    path = save(tmp_path / "a.rec", values("i1"), mode=0, extra2=bytes(extra))
    with pytest.raises(ReadError, match="4-bit"):
        read(path)


@pytest.mark.parametrize(
    ("fields", "words"),
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
def test_damaged_headers_are_one_sentence(tmp_path, fields, words):
    array = values("f4")
    (tmp_path / "a.mrc").write_bytes(bytes(header_bytes(**fields)) + array.tobytes())
    with pytest.raises(ReadError, match=words) as caught:
        read(tmp_path / "a.mrc")
    assert "\n" not in str(caught.value)


def test_a_stack_of_one_volume_is_that_volume(tmp_path):
    array = values("f4")
    np.testing.assert_array_equal(read(save(tmp_path / "a.mrc", array, ispg=401)).data, array)


def test_headers_older_than_the_axis_fields_are_read(tmp_path):
    array = values("f4")
    path = save(tmp_path / "a.mrc", array, mapc=0, mapr=0, maps=0, map=b"    ")
    np.testing.assert_array_equal(read(path).data, array)


@pytest.mark.parametrize(
    ("fields", "words"),
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
def test_unusable_voxel_sizes_are_asked_for(tmp_path, fields, words):
    array = values("f4")
    path = save(tmp_path / "a.mrc", array, **fields)
    with pytest.raises(VoxelSizeError, match=words) as caught:
        read(path)
    assert "voxel_size_angstrom" in str(caught.value)
    assert read(path, voxel_size_angstrom=13.6).voxel_size_angstrom == 13.6


def test_a_given_voxel_size_is_checked_too(tmp_path):
    path = save(tmp_path / "a.mrc", values("f4"))
    for size in (0, -1, float("nan"), 1e9):
        with pytest.raises(VoxelSizeError):
            read(path, voxel_size_angstrom=size)


def test_a_plain_file_is_mapped_read_only(tmp_path):
    tomogram = read(save(tmp_path / "a.mrc", values("f4")))
    base = tomogram.data
    while not isinstance(base, np.memmap):
        base = base.base
    with pytest.raises(ValueError, match="read-only"):
        tomogram.data[0, 0, 0] = 1


def test_pages_of_a_map_are_given_back_and_read_again(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 256, 256)).astype(np.float32)
    write(tmp_path / "map.mrc", values, 13.6)
    data = read(tmp_path / "map.mrc").data

    def resident():
        # The second figure: pages that the process has.
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    before = data.sum()
    touched = resident()
    release_pages(data)
    assert resident() < touched - values.nbytes // 2
    assert data.sum() == before
    release_pages(values)
    release_pages(values[::2].T)


def test_a_large_file_costs_no_memory(tmp_path):
    shape = (4096, 1024, 1024)  # 16 GiB, sparse
    path = tmp_path / "large.mrc"
    path.write_bytes(bytes(header_bytes(shape)))
    os.truncate(path, 1024 + 4 * np.prod(shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tomogram = read(path)
    assert tomogram.shape == shape
    assert tomogram.data[4095, 1023, 1023] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_files_are_read_whatever_their_name(tmp_path, pack):
    array = values("i2")
    plain = save(tmp_path / "a.mrc", array, extended=b"y" * 80, mode=1).read_bytes()
    (tmp_path / "packed.mrc").write_bytes(pack(plain))
    np.testing.assert_array_equal(read(tmp_path / "packed.mrc").data, array)
    (tmp_path / "longer.mrc").write_bytes(pack(plain + b"z" * 100))
    np.testing.assert_array_equal(read(tmp_path / "longer.mrc").data, array)
    (tmp_path / "short.mrc").write_bytes(pack(plain[:-30]))
    with pytest.raises(ReadError, match="30 are missing"):
        read(tmp_path / "short.mrc")
    (tmp_path / "no_header.mrc").write_bytes(pack(plain[:500]))
    with pytest.raises(ReadError, match="500 bytes"):
        read(tmp_path / "no_header.mrc")
    packed = pack(plain)
    (tmp_path / "torn.mrc").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ReadError):
        read(tmp_path / "torn.mrc")
    damaged = bytearray(pack(plain * 20))
    damaged[60:90] = bytes(30)
    (tmp_path / "damaged.mrc").write_bytes(damaged)
    with pytest.raises(ReadError):
        read(tmp_path / "damaged.mrc")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_bomb_does_not_go_off(tmp_path, pack):
    zeros = bytes(64 << 20)
    for shape, words in ((SHAPE, None), ((50_000, 50_000, 50_000), "unpack"), ((512, 512, 300), "missing")):
        (tmp_path / "bomb.mrc").write_bytes(pack(bytes(header_bytes(shape)) + zeros))
        begin = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if words is None:
            assert read(tmp_path / "bomb.mrc").shape == SHAPE
        else:
            with pytest.raises(ReadError, match=words):
                read(tmp_path / "bomb.mrc")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000
        assert time.perf_counter() - begin < 5


def test_files_of_other_projects(data):
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
    ("name", "words"),
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
def test_what_is_no_tomogram_is_refused(data, name, words):
    with pytest.raises(ReadError, match=words) as caught:
        read(data / name)
    assert "\n" not in str(caught.value)


def test_strange_paths_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "a\0b", os.devnull, tmp_path / ("x" * 5000)):
        with pytest.raises(ReadError):
            read(path)
    if os.geteuid() != 0:
        path = save(tmp_path / "a.mrc", values("f4"))
        path.chmod(0)
        with pytest.raises(ReadError, match="permission"):
            read(path)


def test_mutated_headers_are_refused_or_read_quickly(tmp_path):
    """Random damage to a header gives a T3Error or a tomogram that lies inside the file."""
    rng = np.random.default_rng(0)
    array = values("f4")
    messages = []
    special = [0, 1, -1, 2, 3, 6, 12, 101, 401, 2**31 - 1, -(2**31), 1024, 2_000_000_000]
    path = tmp_path / "a.mrc"
    outcomes = {"read": 0, "refused": 0}
    for case in range(600):
        raw = header_bytes(order="<>"[case % 2])
        for _ in range(rng.integers(1, 5)):
            if rng.random() < 0.7:
                offset = 4 * int(rng.integers(0, 56))
                struct.pack_into("<>"[case % 2] + "i", raw, offset, int(rng.choice(special)))
            else:
                raw[int(rng.integers(0, 1024))] = int(rng.integers(0, 256))
        content = bytes(raw) + array.tobytes()
        path.write_bytes(content[: int(rng.integers(0, len(content)))] if rng.random() < 0.1 else content)
        begin = time.perf_counter()
        try:
            tomogram = read(path)
            assert tomogram.data.nbytes <= len(content) - 1024
            float(tomogram.data[-1, -1, -1])
            outcomes["read"] += 1
        except T3Error as error:
            messages.append(str(error))
            outcomes["refused"] += 1
        assert time.perf_counter() - begin < 1
    assert min(outcomes.values()) > 50
    assert not any("\n" in message for message in messages)


def run_mutated_headers(count, folder):
    """In a process of its own, which may not use more memory than it has and 64 MB."""
    script = Path(__file__).parent / "mutate_headers.py"
    done = subprocess.run(
        [sys.executable, script, str(count), "1", str(folder)],
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


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux to know its own memory")
def test_mutated_files_are_read_with_little_memory(tmp_path):
    run_mutated_headers(300, tmp_path)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_with_little_memory(tmp_path):
    run_mutated_headers(10_000, tmp_path)


def unusable_cells():
    """200 cells (lengths, intervals) out of which no voxel size can be known."""
    rng = np.random.default_rng(0)
    bad = [0.0, -0.0, np.nan, np.inf, -np.inf, -50.0, 1e-42, 1e-30, 1e30, 3.4e38]
    cells = []
    for number in range(200):
        lengths, intervals = [50.0, 40.0, 30.0], [5, 4, 3]
        axis = number % 3
        if number < 60:
            lengths[axis] = bad[number % len(bad)]
        elif number < 90:
            intervals[axis] = int(rng.choice([0, -1, -(2**31)]))
        elif number < 110:  # what is written where nothing is known
            lengths = [5.0, 4.0, 3.0]
        elif number < 160:
            lengths[axis] *= float(rng.choice([0.5, 0.98, 1.02, 3, 1000]))
        else:
            lengths = [float(rng.choice(bad)) for _ in range(3)]
        cells.append((tuple(lengths), tuple(intervals)))
    return cells


def test_two_hundred_unusable_voxel_sizes_are_asked_for(tmp_path):
    array = values("f4")
    for number, (lengths, intervals) in enumerate(unusable_cells()):
        mx, my, mz = intervals
        order = "<>"[number % 2]
        path = save(tmp_path / "a.mrc", array, order, cella=lengths, mx=mx, my=my, mz=mz)
        with pytest.raises(VoxelSizeError, match="voxel_size_angstrom") as caught:
            read(path)
        assert str(caught.value).isprintable()
        np.testing.assert_array_equal(read(path, voxel_size_angstrom=13.6).data, array)


# --------------------------------------------------------------------------------------------------- writing


@settings(deadline=None, max_examples=50)
@given(
    array=hnp.arrays(
        st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "f2", "f4", ">f4", "f8"]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    ),
    voxel_size=st.floats(1.25, 100, width=32),
)
def test_what_is_written_is_read_back(tmp_path_factory, array, voxel_size):
    path = tmp_path_factory.mktemp("round") / "a.mrc"
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            write(path, array, voxel_size)
            expected = array.astype(np.float32) if array.dtype.itemsize == 8 else array
    except InputError:
        assert array.dtype.kind == "i"
        assert np.abs(array.astype(np.int64)).max() > 1 << 24
        return
    tomogram = read(path)
    np.testing.assert_array_equal(tomogram.data, expected)
    assert tomogram.voxel_size_angstrom == pytest.approx(voxel_size, rel=1e-5)


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.ones(SHAPE, bool), 0),
        (np.ones(SHAPE, np.uint8), 0),
        (np.full(SHAPE, 200, np.uint8), 1),
        (values("i2"), 1),
        (values("u2"), 6),
        (values("f2"), 12),
        (values("f4"), 2),
        (values("f8"), 2),
        (values("i8"), 0),
        (values("i8") - 1000, 1),
        (values("i8") + 100_000, 2),
        (values("f4")[::-1, :, ::2], 2),
        (np.asfortranarray(values("f4")), 2),
        (values(">f4"), 2),
    ],
)
def test_written_files_are_what_others_expect(tmp_path, array, mode):
    path = tmp_path / "a.mrc"
    write(path, array, 13.6)
    assert mrcfile.validate(path, print_file=sys.stderr)
    with mrcfile.open(path) as reference:
        assert reference.header.mode == mode
        np.testing.assert_array_equal(reference.data, array)
        assert reference.voxel_size.x == pytest.approx(13.6, rel=1e-6)
        assert reference.voxel_size.z == pytest.approx(13.6, rel=1e-6)
        assert int(reference.header.nsymbt) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros((3, 4)), 10),
        (np.zeros((0, 3, 4)), 10),
        (np.zeros(SHAPE, complex), 10),
        (np.full(SHAPE, 2**40), 10),
        (np.zeros(SHAPE), 0),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, array, size):
    with pytest.raises(InputError):
        write(tmp_path / "a.mrc", array, size)
    assert list(tmp_path.iterdir()) == []


def test_bad_places_to_write_to(tmp_path):
    for name in ("missing/a.mrc", "a.mrc.gz", "a.zarr", "."):
        with pytest.raises(OutputError):
            write(tmp_path / name, np.zeros(SHAPE), 10.0)
    assert list(tmp_path.iterdir()) == []


def write_half(target, failure):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    for failure in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(failure):
            write_half(target, failure)
    with pytest.raises(OutputError, match="No space"):
        write_half(target, OSError(28, "No space left on device"))
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_sentence(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with (
        pytest.raises(OutputError, match="space"),
        atomic_path(tmp_path / "a.mrc"),
        open("/dev/full", "wb") as full,
    ):
        full.write(bytes(1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_names_and_checksums(tmp_path):
    assert tomogram_name("/x/007_tomo.rec.gz") == "007_tomo"
    assert tomogram_name("TS_01.mrc_15.00Apx.mrc") == "TS_01.mrc_15.00Apx"
    assert tomogram_name(".mrc") == ".mrc"
    assert display_path("a\nb") == r"'a\nb'"
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf")
    first = file_sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert file_sha256(tmp_path) != first
    with pytest.raises(ReadError):
        file_sha256(tmp_path / "c")


# -------------------------------------------------------------------------------------------------- OME-Zarr


def multiscales(unit="nanometer", scale=(1.0, 1.0, 1.0), axes="zyx"):
    return [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space", "unit": unit} for a in axes],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]},
                {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [9, 9, 9]}]},
            ],
        }
    ]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("unit", "scale"), [("angstrom", 13.6), ("nanometer", 1.36), ("micrometer", 1.36e-3)]
)
def test_ome_zarr_is_read(tmp_path, zarr_format, unit, scale):
    zarr = pytest.importorskip("zarr")
    if zarr_format == 3 and int(zarr.__version__.split(".")[0]) < 3:
        pytest.skip("zarr 2 writes format 2")
    array = values("f4")
    options = {} if int(zarr.__version__.split(".")[0]) < 3 else {"zarr_format": zarr_format}
    group = zarr.open_group(str(tmp_path / "TS_1.zarr"), mode="w", **options)
    for level in "01":
        node = group.create_array(level, shape=SHAPE, chunks=(2, 2, 2), dtype="f4")
        node[...] = array
    meta = multiscales(unit, (scale,) * 3)
    group.attrs.update({"multiscales": meta} if zarr_format == 2 else {"ome": {"multiscales": meta}})
    tomogram = read(tmp_path / "TS_1.zarr")
    np.testing.assert_array_equal(tomogram.data, array)
    assert tomogram.voxel_size_angstrom == pytest.approx(13.6)
    assert tomogram.name == "TS_1"


def test_zarr_without_sizes_or_image(tmp_path):
    zarr = pytest.importorskip("zarr")
    plain = zarr.open_array(
        str(tmp_path / "a.zarr"), mode="w", shape=(1, *SHAPE), dtype="i2", chunks=(1, 2, 2, 2)
    )
    plain[...] = values("i2")[None]
    with pytest.raises(VoxelSizeError):
        read(tmp_path / "a.zarr")
    assert read(tmp_path / "a.zarr", voxel_size_angstrom=10).shape == SHAPE
    zarr.open_array(str(tmp_path / "flat.zarr"), mode="w", shape=(4, 5), dtype="i2")
    zarr.open_array(str(tmp_path / "huge.zarr"), mode="w", shape=(10**6,) * 3, chunks=(64,) * 3, dtype="f4")
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    for name in ("flat", "huge", "group", "broken"):
        with pytest.raises(ReadError) as caught:
            read(tmp_path / f"{name}.zarr", voxel_size_angstrom=10)
        assert "\n" not in str(caught.value)


def test_without_zarr_the_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    def refuse(name, *rest):
        if name == "zarr":
            raise ImportError(name)
        return original(name, *rest)

    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", refuse)
    (tmp_path / "zarr.json").write_text(json.dumps({}))
    with pytest.raises(ReadError, match=r"t3ssfast\[zarr\]"):
        read(tmp_path)


def test_a_folder_for_results_loses_its_mark(tmp_path):
    folder = tmp_path / "a" / "b"
    assert results_folder(folder, "done.json") == folder
    (folder / "done.json").write_text("{}")
    (folder / "else").write_text("")
    results_folder(folder, "done.json")
    assert sorted(p.name for p in folder.iterdir()) == ["else"]
    with pytest.raises(OutputError, match="cannot be used as a folder for results"):
        results_folder(folder / "else")
