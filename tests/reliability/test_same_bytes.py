"""The same input gives the same output, byte for byte."""

from __future__ import annotations

import itertools
from pathlib import Path

import t3ssfast as t3
from t3ssfast.detection.config import DetectConfig
from toy import save_toy_models, toy_tomogram


def test_same_input_gives_the_same_bytes(tmp_path: Path, soak: bool) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    tomogram, _, _ = toy_tomogram((16, 110, 120))
    variants = itertools.cycle(
        {"threads": t, "slab_slices": s} for t, s in itertools.product([1, 2, 3, 8], [None, 1, 5, 16])
    )
    first: bytes | None = None
    for number, variant in zip(range(20 if soak else 4), variants, strict=False):
        found = t3.detect(
            tomogram,
            segmenter=segmenter,
            classifier=classifier,
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
