"""Train a toy classifier in a process of its own: ``python train_process.py OUT [--resume] [--slow]``."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import torch
from training_toys import CLASSIFIER, columns, sheet_example

from t3ssfast.training import loop, train_classifier


def main() -> None:
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    if "--slow" in sys.argv:
        # Time enough to be killed between two checkpoints.
        original = loop.learning_rate
        loop.learning_rate = lambda step, options: (time.sleep(0.05), original(step, options))[1]
    train_phase = loop.Trainer.train_phase

    def train_phase_and_write_checksum(trainer: loop.Trainer, module: torch.nn.Module) -> None:
        train_phase(trainer, module)
        content = b"".join(p.detach().numpy().tobytes() for p in module.state_dict().values())
        checksum = hashlib.sha256(content).hexdigest()
        out.with_name(f"rank{os.environ.get('RANK', '0')}.txt").write_text(checksum, encoding="utf-8")

    loop.Trainer.train_phase = train_phase_and_write_checksum
    tomograms, membranes, picks = columns(sheet_example(k) for k in range(3))
    options = CLASSIFIER | {"steps": 20, "steps_per_epoch": 4}
    train_classifier(tomograms, picks, membranes, out, resume="--resume" in sys.argv, **options)


if __name__ == "__main__":
    main()
