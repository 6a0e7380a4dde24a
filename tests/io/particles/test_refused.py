"""Files that are not particle files, are damaged, or would take a library minutes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from t3ssfast.errors import ReadError, T3Error
from t3ssfast.io.particles import export, load_all_candidates, load_candidates

SUFFIXES = (".star", ".tbl", ".mod", ".json", ".csv", ".txt", ".cbox", ".em", ".xml", ".ndjson", ".tsv")


def test_expensive_files_are_refused_quickly(tmp_path, monkeypatch):
    wide = "data_x\nloop_\n" + "".join(f"_a{i}\n" for i in range(20_000)) + "1 " * 20_000 + "\n"
    long = "data_x\nloop_\n_a\n_b\n" + "1 " * 2_000_000 + "\n"
    quotes = "data_x\nloop_\n_a\n_b\n" + "1 '" * 300_000 + "\n"
    for content in (wide, long, quotes):
        (tmp_path / "a.star").write_text(content)
        begin = time.process_time()
        with pytest.raises(ReadError):
            load_all_candidates(tmp_path / "a.star", voxel_size_angstrom=10)
        assert time.process_time() - begin < 5
    (tmp_path / "a.tbl").write_text("1 " * 3_000_000 + "\n" + "2 " * 30 + "\n")
    with pytest.raises(ReadError):
        load_all_candidates(tmp_path / "a.tbl", voxel_size_angstrom=10)
    rows = "1 2 3\n" * 30_000
    (tmp_path / "b.star").write_text("data_\nloop_\n" + "".join(f"_rlnCoordinate{a}\n" for a in "XYZ") + rows)
    assert len(load_candidates(tmp_path / "b.star", voxel_size_angstrom=10)) == 30_000
    monkeypatch.setattr("t3ssfast.io.particles.relion.star.MAX_SECONDS", -1.0)
    with pytest.raises(ReadError, match="split the file"):
        load_candidates(tmp_path / "b.star", voxel_size_angstrom=10)


def test_damaged_files_raise_or_give_few_candidates(data, tmp_path, make_candidates):
    export(make_candidates(20), tmp_path / "good.mod", "imod")
    export(make_candidates(20), tmp_path / "good.star", "relion5")
    rng = np.random.default_rng(0)
    contents = [
        b"",
        b"\n\n",
        b"hello\n",
        b"data_\n",
        b"data_x\nloop_\n",
        b"data_x\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2\n",
        b"data_x\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 x\n",
        b"data_x\n_a 'b\n",
        b"z,y,x\n1,2,nan\n",
        b"z,y,x\n1,2\n",
        b"1 2\n",
        b"[" * 100_000,
        b"{}",
        b'{"points": [{"location": {"x": 1}}]}',
        b'{"points": [{"location": {"x": 1, "y": 2, "z": "c"}}], "voxel_spacing": 10}',
        b'{"points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": [[1]]}]}',
        b"1 " * 35 + b"\n1\n",
        b"x " * 35 + b"\n",
        b"<a>" * 100_000,
        b"<objlist><object x='1' y='2' z='inf'/></objlist>",
        b"<ParticleList><Particle/></ParticleList>",
        b"x,y,z\n" + b"1," * 300_000 + b"\n",
        b"," * 300_000,
        b"x;y;z\n1;2\n3;4;5;6\n",
        b'{"boxes_3d": [[1, 2, {}]]}',
        b'{"boxes_3d": 3}',
        b'{"boxes_3d": [[1, 2, 3, "a", "b", "c"]], "class_list": []}',
        bytes([6, 0, 0, 5, *(0, 0, 0, 127) * 3]) + bytes(600),
        rng.bytes(3000),
        b"IMODV1.2" + rng.bytes(3000),
        (data / "emd_3197.map").read_bytes()[:4000],
    ]
    good = (tmp_path / "good.mod").read_bytes()
    contents += [good[:n] for n in range(0, len(good), 97)]
    for _ in range(60):
        damaged = bytearray(good)
        for at in rng.integers(8, len(good), 4):
            damaged[at] = rng.integers(0, 256)
        contents.append(bytes(damaged))
    text = bytearray((tmp_path / "good.star").read_bytes())
    for _ in range(30):
        damaged = bytearray(text)
        damaged[rng.integers(0, len(text))] = rng.integers(0, 256)
        contents.append(bytes(damaged))
    refused = 0
    for content in contents:
        for suffix in SUFFIXES:
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content)
            begin = time.process_time()
            try:
                assert len(load_all_candidates(path, voxel_size_angstrom=10)) < 5
            except T3Error as error:
                refused += "\n" not in str(error)
            assert time.process_time() - begin < 2
    assert refused > 0.5 * len(SUFFIXES) * len(contents)


@pytest.mark.parametrize("name", ["missing.star", "README.md", "emd_3197.map", "relion5_tomograms.star", ""])
def test_other_files_raise(data, name):
    with pytest.raises(T3Error) as caught:
        load_candidates(data / name)
    assert "\n" not in str(caught.value)
