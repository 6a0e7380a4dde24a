"""Same input, same output, byte for byte."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import t3ssfast as t3
from t3ssfast.detection.config import DetectConfig
from toy import save_toy_models, toy_tomogram


def repeat_detections(runs: int, tmp_path: Path) -> None:
    segmenter, judge = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((16, 110, 120))
    variants = itertools.cycle(
        {"threads": t, "slab_slices": s} for t, s in itertools.product([1, 2, 3, 8], [None, 1, 5, 16])
    )
    first: bytes | None = None
    for number, variant in zip(range(runs), variants, strict=False):
        found = t3.detect(
            tomogram,
            segmenter=segmenter,
            classifier=judge,
            device="cpu",
            config=DetectConfig(**variant),
            progress=False,
        )
        folder = tmp_path / f"{number}"
        found.save(folder)
        names = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")
        content = b"".join((folder / name).read_bytes() for name in names)
        assert len(found.candidates) > 0
        first = content if first is None else first
        assert content == first, variant


def test_the_same_input_gives_the_same_bytes(tmp_path):
    repeat_detections(4, tmp_path)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_twenty_times(tmp_path):
    repeat_detections(20, tmp_path)
