"""Import of the package and its public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import t3ssfast as t3


def test_every_public_name_can_be_loaded() -> None:
    for name in t3.__all__:
        assert getattr(t3, name) is not None
    for name in ("detect", "preselect", "simulate", "evaluate", "export", "average", "extract"):
        assert callable(getattr(t3, name)), name


def test_import_does_not_load_torch() -> None:
    code = (
        "import sys, t3ssfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'detect', 'read'} <= set(dir(t3ssfast))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no_such_name"):
        t3.no_such_name  # noqa: B018


def test_detection_loads_no_packages_that_it_does_not_use() -> None:
    code = (
        "import sys\n"
        "import numpy as np\n"
        "import t3ssfast as t3\n"
        "volume = np.random.default_rng(0).normal(size=(24, 80, 80)).astype(np.float32)\n"
        "t3.detect(volume, voxel_size_angstrom=13.6, progress=False)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "t3ssfast.detection.pipeline" in loaded
    # Half a second and more of every detection, for reading and writing particles, fits, plots, commands.
    unused = {"imodmodel", "matplotlib", "pandas", "pydantic", "scipy.optimize", "scipy.stats", "typer"}
    assert not loaded & (unused | {"openvino", "starfile", "torch._dynamo", "zarr"})
