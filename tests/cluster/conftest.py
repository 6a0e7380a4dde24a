"""Data sets of small tomograms for tests of many, and what must not be left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t3ssfast as t3
from result_files import results_in
from t3ssfast.detection import run_to_folder
from toy import VOXEL, save_toy_models, toy_tomogram

FAULTS = Path(__file__).parent / "faults"
# OpenVINO takes a second of preparation, longer than these detections. The memory budget is recorded in the
# results, and workers get a smaller one where it is not available to each of them.
CONFIG = t3.DetectConfig(contrast="dark", segmenter_engine="torch", memory_budget_bytes=256 << 20)


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of `detect_many` with toy models."""
    segmenter, classifier = save_toy_models(tmp_path_factory.mktemp("models"))
    models = {"segmenter": segmenter, "classifier": classifier}
    return {**models, "config": CONFIG, "device": "cpu", "pictures": False, "progress": False}


@pytest.fixture(scope="session")
def volumes() -> dict[str, np.ndarray]:
    """A volume with three particles, and a small one without any."""
    return {"three": toy_tomogram()[0].data, "none": toy_tomogram((10, 90, 100), particles=0)[0].data}


@pytest.fixture
def data_set(tmp_path: Path, volumes: dict[str, np.ndarray]) -> Callable[..., list[Path]]:
    """Function that writes tomograms of these names; the first has particles."""

    def write(*names: str) -> list[Path]:
        paths = [tmp_path / f"{name}.mrc" for name in names]
        for number, path in enumerate(paths):
            if not path.stem.startswith("missing"):
                t3.write(path, volumes["none" if number else "three"], VOXEL)
        return paths

    return write


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers fail by the names of their tomograms."""
    path = os.pathsep.join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def serial(options: dict[str, Any], tmp_path: Path) -> Callable[[Path], dict[str, bytes]]:
    """Function that detects in one tomogram by itself and returns the contents of the results."""

    def detect(path: Path) -> dict[str, bytes]:
        folder = tmp_path / "serial" / path.stem
        given = {key: value for key, value in options.items() if key != "pictures"}
        run_to_folder(folder, path, **given)
        return results_in(folder)

    return detect


def workers_left() -> list[str]:
    """Return the isolated workers that run on this machine for this user and this test process."""
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "t3ssfast.cluster.worker" in line]


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Assert that no worker of this process outlives the test."""
    yield
    own = str(os.getpid())
    assert not [line for line in workers_left() if line.split()[0] == own]
