"""Training of the verifier: a network that tells T3SS from the classifier's false candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.models import VERIFIER_ANSWERS, AxialNet, LoadedModel
from t3ssfast.tomogram import StrPath, Tomogram
from t3ssfast.training.boxes import BoxPool
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Batch, Task, Trainer, load_start
from t3ssfast.training.metrics import score_metrics
from t3ssfast.training.options import VerifierOptions, make_options

__all__ = ["train_verifier"]

# With fewer tomograms, single particles are held out instead of whole tomograms.
FEW_TOMOGRAMS = 4


def train_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    out: StrPath = "verifier.pt",
    *,
    start: StrPath | LoadedModel | None = None,
    contrast: str | Sequence[str] = "auto",
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a network that tells T3SS from false candidates on cylindrical sections around their axes.

    Parameters
    ----------
    tomograms
        Tomograms of any voxel size and contrast.
    picks
        All T3SS of each tomogram, centred on the base, with their axes out of the cell; picks of another kind
        are negatives. Picks without poses (all axes along z) take the axis of the nearest candidate; those
        without a candidate nearby are not used.
    candidates
        Candidates of each tomogram down to low scores, detected without a verifier. Those close to a T3SS are
        positives, with the errors of their centre and axis; those far from every T3SS are negatives.
    start
        Verifier to start from; the grid, height, widths and normalisation are taken from it. None starts from
        random weights.
    out, contrast, device, resume, progress
        As for `train_segmenter`.
    **options
        Fields of `VerifierOptions`.

    Returns
    -------
    Path of the model file.

    Raises
    ------
    InputError
        If there is no tomogram, no T3SS or no false candidate in the training or in the held-out tomograms,
        or a pick outside its tomogram.
    ConfigError
        If an option does not exist or has a value out of bounds.
    ModelError
        If the verifier to start from is not an AxialNet of these widths.
    """
    begun, fixed = load_start(start, "verifier", "height_px")
    chosen = make_options(VerifierOptions, {**fixed, **options})
    if len(candidates) != len(tomograms):
        raise InputError(
            f"There are candidates of {len(candidates)} tomograms for {len(tomograms)} tomograms; give one "
            "set for each."
        )
    with join_world(device) as world:
        prepared = prepare_tomograms(tomograms, None, picks, chosen, contrast)
        task = VerifierTask(chosen, prepared, picks, candidates, begun)
        return Trainer(task, out, world, resume=resume, progress=progress).train()


class VerifierTask(Task[VerifierOptions]):
    """Cylindrical sections around T3SS and false candidates."""

    model_kind = "verifier"
    classes = VERIFIER_ANSWERS
    metric = "average_precision"
    validation_batch = 64

    def __init__(
        self,
        options: VerifierOptions,
        tomograms: Sequence[TrainingTomogram],
        picks: Sequence[Candidates],
        candidates: Sequence[Candidates],
        start: LoadedModel | None,
    ) -> None:
        self.options, self.tomograms, self.start = options, tomograms, start
        self.window_px = options.height_px
        self.inputs = [
            [c.centre_zyx.tolist(), c.normal_zyx.tolist(), c.score.tolist()] for c in (*picks, *candidates)
        ]
        pools = {
            id(tomogram): BoxPool.from_candidates(number, tomogram, known, found, options)
            for number, (tomogram, known, found) in enumerate(zip(tomograms, picks, candidates, strict=True))
        }
        whole = BoxPool.concatenate([*pools.values()])
        if len(tomograms) >= FEW_TOMOGRAMS:
            parts = split_tomograms(tomograms, options)
            training, held_out = (BoxPool.concatenate([pools[id(t)] for t in part]) for part in parts)
            self._pools = (training, held_out)
        # Few picks or verdicts may all be in tomograms of one part.
        if len(tomograms) < FEW_TOMOGRAMS or not all(len(p.true) and len(p.false) for p in self._pools):
            self._pools = whole.split(options)
        for name, pool in zip(("training", "validation"), self._pools, strict=True):
            for label, boxes in (("T3SS", pool.true), ("false candidate", pool.false)):
                if not len(boxes):
                    raise InputError(
                        f"There is no {label} in the {name} tomograms; give more tomograms, candidates down "
                        "to lower scores, picks with poses, or another validation_fraction."
                    )

    def build_module(self) -> nn.Module:
        module = AxialNet(self.options.channels, self.options.hidden, self.options.height_px)
        # Convolutions of few channels run twice as fast with adjacent channels.
        return module.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]

    def draw_batch(self, phase: int, step: int, world: World) -> Batch:
        """Draw augmented sections (N, azimuths, height, height / 2) and targets (N, 6)."""
        rng = np.random.default_rng([self.options.seed, 12, step, *world.seed])
        return self._pools[0].draw(rng, world.local_batch(self.options.batch), self.options)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropy of the label plus weighted Huber losses of the centre and axis of T3SS."""
        true = targets[:, 0] > 0
        offset = F.huber_loss(outputs[true, 1:4], targets[true, 1:4])
        correction = F.huber_loss(outputs[true, 4:], targets[true, 4:])
        label = F.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 0])
        return label + self.options.offset_weight * offset + self.options.lean_weight * correction

    def validation_set(self) -> Batch:
        return self._pools[1].all_sections(self.options)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the cross-entropy, average precision, precision and recall at 0.5, and pose errors."""
        logits, true = outputs[:, 0], targets[:, 0].numpy() == 1
        errors = outputs.numpy()[true] - targets.numpy()[true]
        return {
            "validation_loss": float(F.binary_cross_entropy_with_logits(logits, targets[:, 0].float())),
            **score_metrics(torch.sigmoid(logits).numpy(), true),
            "median_offset_px": float(np.median(np.linalg.norm(errors[:, 1:4], axis=1))),
            "median_lean_degrees": float(np.degrees(np.median(np.linalg.norm(errors[:, 4:], axis=1)))),
        }
