"""Ctrl-C ends a command within two seconds, whatever is running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from processes import Forks
from t3ssfast.cli.interrupts import run_interruptible
from t3ssfast.io import write
from t3ssfast.models import ModelMetadata, save_model
from toy import VOXEL, save_toy_models, toy_classifier, toy_tomogram

MAX_SECONDS = 2.0


def interrupt(forks: Forks, command: list[str], out: Path, wait: Callable[[], None]) -> float:
    """Start a command, interrupt it when `wait` returns, and return the seconds it took to end."""
    child, log = forks.start(f"sys.argv = {['t3ssfast', *command]!r}; print('ready', flush=True); main()")
    while not log.exists() or log.read_text() != "ready\n":
        time.sleep(0.01)
    wait()
    os.kill(child, signal.SIGINT)
    start = time.monotonic()
    code = forks.wait(child)
    seconds = time.monotonic() - start
    output = log.read_text()
    assert code == 130, output
    lines = [line for line in output.splitlines() if not line.startswith("warning: ")]
    assert lines == ["ready", "interrupted"]
    assert not (out / "provenance.json").exists()
    return seconds


def test_interrupt_during_a_detection(forks: Forks, tmp_path: Path, soak: bool) -> None:
    times, longest_wait = (50, 6.0) if soak else (2, 3.0)
    # The memory budget holds the tomogram as one slab, which the U-Net needs many times the wait for.
    noise = np.random.default_rng(1).normal(0, 20, (100, 512, 512)).clip(-127, 127).astype(np.int8)
    write(tmp_path / "noise.mrc", noise, 13.6)
    out = tmp_path / "out"
    command = ["detect", str(tmp_path / "noise.mrc"), "-o", str(out), "--memory-budget", "8"]
    rng = np.random.default_rng(0)
    seconds = [
        interrupt(forks, command, out, lambda: time.sleep(float(rng.uniform(0, longest_wait))))
        for _ in range(times)
    ]
    median = np.median(seconds)
    print(f"{times} interrupts took {min(seconds):.2f} to {max(seconds):.2f} s, median {median:.2f} s")
    assert max(seconds) < MAX_SECONDS


class Endless(nn.Module):
    """A classifier that answers a probe of two windows at once, and never returns for more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_classifier()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            for _ in range(1_000_000_000):
                x = x + 0.0
        return self.inner(x)


def test_interrupt_during_a_native_call_that_never_returns(forks: Forks, tmp_path: Path) -> None:
    metadata = ModelMetadata(
        "classifier", voxel_size_angstrom=VOXEL, window_px=50, classes=("background", "t3ss")
    )
    save_model(Endless(), tmp_path / "endless.pt", metadata)
    segmenter, _ = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((6, 90, 100))
    write(tmp_path / "toy.mrc", tomogram.data, VOXEL)
    out = tmp_path / "out"
    models = ["--segmenter", str(segmenter), "--classifier", str(tmp_path / "endless.pt")]
    # The reader of model files would refuse the endless loop.
    models.append("--trust-model")
    command = ["detect", str(tmp_path / "toy.mrc"), "-o", str(out), *models]

    def wait_for_the_classifier() -> None:
        while not list(out.glob(".t3ssfast-work-*/membrane-*.npz")):
            time.sleep(0.05)
        time.sleep(0.7)

    assert interrupt(forks, command, out, wait_for_the_classifier) < MAX_SECONDS


def test_a_signal_that_another_thread_received() -> None:
    """The kernel may choose any thread of a process, and only the main thread runs Python's handler."""
    longest, start = 20.0, time.monotonic()

    def work() -> None:
        # Until the main thread sleeps.
        time.sleep(0.5)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        while time.monotonic() - start < longest:
            time.sleep(0.01)

    # A process in a shell's background ignores interrupts by default.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_interruptible(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < MAX_SECONDS


class FreedSlowly:
    """Takes a while to be freed, as large models do."""

    def __init__(self, freed: threading.Event) -> None:
        self._freed = freed

    def __del__(self) -> None:
        time.sleep(0.3)
        self._freed.set()


def test_the_thread_of_a_command_has_ended_with_it() -> None:
    """Python may end the process next, and PyTorch aborts it if a thread still frees tensors then."""
    kept, freed = threading.local(), threading.Event()

    def work() -> int:
        kept.models = FreedSlowly(freed)
        return 7

    assert run_interruptible(work) == 7
    assert freed.is_set()
