"""Fixtures of the tests of kills, interrupts and shared folders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from processes import Forks

# OpenVINO takes a second of preparation, longer than these detections.
SETUP = """
    import os, signal, sys, time
    from pathlib import Path
    import t3ssfast as t3
    import t3ssfast.cli.detect_runs, t3ssfast.models.engines.engine
    import test_resume
    from t3ssfast.cli import app, main
    from t3ssfast.cli.interrupts import run_interruptible
    from t3ssfast.detection import run_to_folder
    from t3ssfast.runtime.folder_lock import FolderLock
    from t3ssfast.detection.config import DetectConfig
    t3ssfast.cli.detect_runs.BUSY_SECONDS = 0.05
    t3ssfast.models.engines.engine.openvino_version = lambda: None
    # A process in a shell's background ignores interrupts by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    """


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A process that has imported everything and forks children."""
    made = Forks(SETUP, tmp_path_factory.mktemp("forks"))
    yield made
    made.close()
