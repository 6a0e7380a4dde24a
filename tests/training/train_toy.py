"""Trains a classifier on the toy set in its own process: ``python train_toy.py OUT [--resume] [--slow]``."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import torch
from test_training import CLASSIFIER, example

from t3ssfast.training import classifier as module
from t3ssfast.training import loop


def main() -> None:
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    if "--slow" in sys.argv:
        # Time enough to be killed between two checkpoints.
        original = loop.learning_rate
        loop.learning_rate = lambda step, options: (time.sleep(0.05), original(step, options))[1]
    optimise = module.optimise

    def told(trained: torch.nn.Module, run: loop.Run, **rest: object) -> dict[str, float]:
        figures = optimise(trained, run, **rest)
        content = b"".join(p.detach().numpy().tobytes() for p in trained.state_dict().values())
        rank = os.environ.get("RANK", "0")
        digest = hashlib.sha256(content).hexdigest()
        out.with_name(f"rank{rank}.txt").write_text(digest, encoding="utf-8")
        return figures

    module.optimise = told
    tomograms, membranes, picks = (list(part) for part in zip(*(example(k) for k in range(3)), strict=True))
    options = CLASSIFIER | {"steps": 20, "steps_per_epoch": 4}
    module.train_classifier(tomograms, picks, membranes, out, resume="--resume" in sys.argv, **options)


if __name__ == "__main__":
    main()
