"""Upload of slices in their stored dtype, and their preparation on the device; here on CPU tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from networks import segment
from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.run import Run
from t3ssfast.errors import InputError
from t3ssfast.io import read, write
from t3ssfast.kernels.padding import pad_by_reflection, pad_for_windows
from t3ssfast.models import load_model
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.runtime import upload as upload_module
from t3ssfast.runtime.upload import Uploader, as_float32
from t3ssfast.tomogram import Tomogram

CPU = torch.device("cpu")
STORED = ["int8", "uint8", "int16", "uint16", "float16", "float32"]
OTHERS = ["bool", "int32", "uint32", "int64", "float64", ">i2", ">u2", ">f4", ">f2"]


def random_values(name: str, shape: tuple[int, int, int] = (5, 64, 70)) -> np.ndarray:
    """Make finite values from random bits, or normally distributed ones for float32 and float64."""
    dtype, count = np.dtype(name), int(np.prod(shape))
    rng = np.random.default_rng(0)
    if dtype.kind == "f" and dtype.itemsize > 2:
        return rng.normal(100, 50, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), count, np.uint64)
    values = bits.astype(f"u{dtype.itemsize}").view(f"{dtype.kind}{dtype.itemsize}").reshape(shape)
    if dtype.kind == "f":
        values = np.where(np.isfinite(values), values, values.dtype.type(1))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", STORED + OTHERS)
@pytest.mark.parametrize("buffer_bytes", [1, 3 * 64 * 70 * 2, 1 << 30])
def test_every_dtype_arrives_as_the_same_float32(
    dtype: str, buffer_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "BUFFER_BYTES", buffer_bytes)
    data = random_values(dtype)
    uploader = Uploader(CPU)
    for z0, z1 in ((0, 5), (1, 4), (2, 2), (4, 5)):
        uploaded = uploader.upload(data, z0, z1)
        if np.dtype(dtype).name in STORED:
            assert uploaded.element_size() == data.dtype.itemsize
        found = as_float32(uploaded, data.dtype).numpy()
        expected = data[z0:z1].astype(np.float32)
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("dtype", [*STORED, "float64", ">i2", "bool"])
@pytest.mark.parametrize("highpass_nm", [0.0, 90.0])
def test_slabs_on_the_device_equal_those_on_the_host(dtype: str, highpass_nm: float) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(60, 20, (9, 80, 90)) + np.linspace(0, 40, 90)
    noise[4, 7, 8] = 120
    data = (noise > 60) if dtype == "bool" else noise.astype(dtype)
    grid = PreparedTomogram.prepare(
        Tomogram(data, 13.6), normalisation=Normalisation(highpass_nm=highpass_nm), contrast_sign=-1
    )
    uploader = Uploader(CPU)
    for z0, z1 in ((0, 9), (3, 5), (8, 9), (2, 2)):
        expected = grid.slab(z0, z1)
        found = grid.slab_on_device(z0, z1, uploader)
        assert (found.dtype, tuple(found.shape)) == (torch.float32, expected.shape)
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("voxel_size", [8.0, 20.0])
def test_resampled_slabs_differ_by_rounding_only(voxel_size: float) -> None:
    data = np.random.default_rng(2).normal(size=(14, 60, 72)).astype(np.float32)
    grid = PreparedTomogram.prepare(Tomogram(data, voxel_size), voxel_size_angstrom=13.6)
    for z0, z1 in ((0, grid.shape[0]), (2, 3)):
        found = grid.slab_on_device(z0, z1, Uploader(CPU)).numpy()
        np.testing.assert_allclose(found, grid.slab(z0, z1), atol=2e-5)


def test_slabs_of_a_memory_mapped_file(tmp_path: Path) -> None:
    data = np.random.default_rng(3).normal(0, 300, (6, 64, 64)).astype(np.int16)
    write(tmp_path / "a.mrc", data, 13.6)
    grid = PreparedTomogram.prepare(read(tmp_path / "a.mrc"))
    np.testing.assert_array_equal(grid.slab_on_device(1, 5, Uploader(CPU)).numpy(), grid.slab(1, 5))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_non_finite_values_are_refused_with_their_position(dtype: str) -> None:
    data = np.random.default_rng(4).normal(size=(40, 32, 32)).astype(dtype)
    grid = PreparedTomogram.prepare(Tomogram(data, 13.6))
    data[3, 5, 6] = np.nan
    with pytest.raises(InputError, match=r"\(3, 5, 6\) is nan"):
        grid.slab_on_device(2, 9, Uploader(CPU))
    with pytest.raises(InputError, match="40 slices"):
        grid.slab_on_device(2, 41, Uploader(CPU))


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_tensors_are_padded_like_arrays(size: int) -> None:
    slab = np.random.default_rng(5).normal(size=(2, 11, 60)).astype(np.float32)
    np.testing.assert_array_equal(pad_for_windows(torch.from_numpy(slab), size), pad_for_windows(slab, size))
    padded = pad_by_reflection(torch.from_numpy(slab), (0, 40), (3, 0))
    np.testing.assert_array_equal(padded, pad_by_reflection(slab, (0, 40), (3, 0)))


def test_segment_and_classify_slab_accept_tensors() -> None:
    slab = np.random.default_rng(6).normal(size=(2, 70, 75)).astype(np.float32)
    segmenter = load_model(None, model_kind="segmenter")
    classifier = load_model(None, model_kind="classifier")
    tensor = torch.from_numpy(slab)
    np.testing.assert_array_equal(
        segment(tensor, segmenter, engine="torch"), segment(slab, segmenter, engine="torch")
    )
    region = (np.random.default_rng(7).random(slab.shape) < 0.05).astype(np.uint8)
    for expected, found in zip(
        classify_slab(slab, region, classifier), classify_slab(tensor, region, classifier), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_detection_from_uploaded_slabs_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the code path of a CUDA device on the CPU."""
    import t3ssfast as t3

    tomogram = t3.simulate(11, (24, 160, 160)).tomogram
    config = t3.DetectConfig(contrast="dark", score_threshold=0.05, slab_slices=7, segmenter_engine="torch")

    def run() -> t3.Detection:
        return t3.detect(tomogram, config=config, device="cpu", progress=False)

    expected = run()
    uploader = Uploader(CPU)
    read = []

    def read_slab(self: Run, grid: PreparedTomogram, z0: int, z1: int) -> torch.Tensor:
        read.append((z0, z1))
        return grid.slab_on_device(z0, z1, uploader)

    monkeypatch.setattr(Run, "read_slab", read_slab)
    found = run()
    assert read
    assert len(found.candidates) > 0
    np.testing.assert_array_equal(found.membrane, expected.membrane)
    np.testing.assert_array_equal(found.candidates.centre_zyx, expected.candidates.centre_zyx)
    np.testing.assert_array_equal(found.candidates.score, expected.candidates.score)
