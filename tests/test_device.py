"""Slabs and detections on a CUDA device against the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import t3ssfast as t3
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.runtime import upload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "float16", "float32", "float64", ">i2"]
)
@pytest.mark.parametrize("voxel_size", [13.6, 9.0])
def test_slabs_prepared_on_the_device_match_the_cpu(
    dtype: str, voxel_size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks pass through each staging buffer, while TF32 is allowed for other products."""
    monkeypatch.setattr(upload, "BUFFER_BYTES", 3 * 100 * 120)
    monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    data = np.random.default_rng(5).normal(60, 15, (21, 100, 120)).astype(dtype)
    grid = PreparedTomogram.prepare(t3.Tomogram(data, voxel_size), voxel_size_angstrom=13.6)
    uploader = upload.Uploader(torch.device("cuda"))
    depth = grid.shape[0]
    slabs = [(0, 5), (5, 6), (6, depth)]
    found = [grid.slab_on_device(a, b, uploader) for a, b in slabs]
    for (a, b), slab in zip(slabs, found, strict=True):
        np.testing.assert_allclose(slab.cpu().numpy(), grid.slab(a, b), atol=2e-5)


def test_detection_on_the_device_agrees_with_the_cpu() -> None:
    simulation = t3.simulate(seed=41, shape=(48, 224, 224))
    on_cpu = t3.detect(simulation.tomogram, device="cpu", progress=False)
    on_device = t3.detect(simulation.tomogram, device="cuda", progress=False)
    assert len(on_cpu.candidates) == len(on_device.candidates)
    np.testing.assert_allclose(on_device.candidates.centre_zyx, on_cpu.candidates.centre_zyx, atol=0.5)
