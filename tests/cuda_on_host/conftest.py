"""Fixtures of the tests that run the CUDA sources on a CPU.

They need the extension `_core_on_host`. `nox -s cuda_on_host` builds it and runs them; by hand:

    cmake -S . -B build-on-host -G Ninja -DT3SSFAST_CUDA=OFF -DT3SSFAST_CUDA_ON_HOST=ON
    cmake --build build-on-host
    T3SSFAST_CUDA_ON_HOST=$(ls build-on-host/tests/cuda_on_host/_core_on_host*) pytest tests/cuda_on_host
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host_device import PATH, Extension, load_extension, patch_torch

EXTENSION = Extension(load_extension()) if PATH else None


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Extension]:
    """The extension with a device of compute capability 9.0; skipped where it was not built."""
    if EXTENSION is None:
        pytest.skip(
            "set T3SSFAST_CUDA_ON_HOST to the extension _core_on_host (tests/cuda_on_host/conftest.py)"
        )
    EXTENSION.use()
    EXTENSION.schedule()
    EXTENSION.findings()
    patch_torch(monkeypatch, EXTENSION)
    yield EXTENSION
    EXTENSION.use()
