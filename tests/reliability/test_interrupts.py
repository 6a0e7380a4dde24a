"""Ctrl-C is answered within two seconds, whatever is under way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from processes import Forks
from t3ssfast.io import write
from t3ssfast.models import ModelMetadata, save_model
from toy import VOXEL, save_toy_models, toy_classifier, toy_tomogram

SECONDS = 2.0


def interrupt(forks: Forks, command: list[str], out: Path, wait: Callable[[], None]) -> float:
    """Interrupt a command when `wait` returns; how long it took to end."""
    child, log = forks.start(f"sys.argv = {['t3ssfast', *command]!r}; print('ready', flush=True); main()")
    while not log.exists() or log.read_text() != "ready\n":
        time.sleep(0.01)
    wait()
    os.kill(child, signal.SIGINT)
    asked = time.monotonic()
    code = forks.wait(child)
    took = time.monotonic() - asked
    said = log.read_text()
    assert code == 130, said
    assert said == "ready\ninterrupted\n"
    assert not (out / "provenance.json").exists()
    return took


def interrupt_often(times: int, latest: float, forks: Forks, tmp_path: Path) -> None:
    # All of it is one slab, and the bundled U-Net takes many times as long for it as the longest wait.
    noise = np.random.default_rng(1).normal(0, 20, (100, 512, 512)).clip(-127, 127).astype(np.int8)
    write(tmp_path / "noise.mrc", noise, 13.6)
    out = tmp_path / "out"
    command = ["detect", str(tmp_path / "noise.mrc"), "-o", str(out), "--memory-budget", "8"]
    rng = np.random.default_rng(0)
    took = [
        interrupt(forks, command, out, lambda: time.sleep(float(rng.uniform(0, latest))))
        for _ in range(times)
    ]
    print(
        f"{times} interrupts took {min(took):.2f} to {max(took):.2f} s, in the middle {np.median(took):.2f} s"
    )
    assert max(took) < SECONDS


def test_an_interrupt_stops_a_detection(forks, tmp_path):
    interrupt_often(2, 3.0, forks, tmp_path)


@pytest.mark.slow
def test_fifty_interrupts_stop_a_detection(forks, tmp_path):
    interrupt_often(50, 6.0, forks, tmp_path)


class Endless(nn.Module):
    """Answers a probe at once, and more windows than that never."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_classifier()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            for _ in range(1_000_000_000):
                x = x + 0.0
        return self.inner(x)


def test_an_interrupt_ends_even_a_call_that_does_not_come_back(forks, tmp_path):
    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(Endless(), tmp_path / "endless.pt", metadata)
    segmenter, _ = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((6, 90, 100))
    write(tmp_path / "toy.mrc", tomogram.data, VOXEL)
    out = tmp_path / "out"
    models = ["--segmenter", str(segmenter), "--classifier", str(tmp_path / "endless.pt")]
    command = ["detect", str(tmp_path / "toy.mrc"), "-o", str(out), *models]

    def reach_classifier() -> None:
        while not list(out.glob(".t3ssfast-work-*/membrane-*.npz")):
            time.sleep(0.05)
        time.sleep(0.7)

    assert interrupt(forks, command, out, reach_classifier) < SECONDS
