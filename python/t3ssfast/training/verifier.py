"""Training of the verifier: a network that tells particles from the classifier's false candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t3ssfast.candidates import T3SS, Candidates
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.models import AxialKindNet, AxialNet, LoadedModel, verifier_answers
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
# Layers that an `AxialKindNet` has beyond those of an `AxialNet`.
KIND_LAYERS = ("kind_features", "other_kinds")


def train_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    out: StrPath = "verifier.safetensors",
    *,
    start: StrPath | LoadedModel | None = None,
    contrast: str | Sequence[str] = "auto",
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a network that tells T3SS from false candidates on cylindrical sections around their axes.

    With several `kinds` it also tells these kinds of particles apart: `kinds=("t3ss", "flagellar_motor")`.

    Parameters
    ----------
    tomograms
        Tomograms of any voxel size and contrast.
    picks
        All particles of the kinds to tell apart in each tomogram, centred on the base, with their axes out of
        the cell; picks of another kind are negatives. Picks without poses (all axes along z) take the axis of
        the nearest candidate; those without a candidate nearby are not used.
    candidates
        Candidates of each tomogram down to low scores, detected without a verifier. Those close to a particle
        are positives, with the errors of their centre and axis; those far from every one are negatives.
    start
        Verifier to start from; the grid, height, widths, normalisation and kinds are taken from it. Given
        kinds may continue its own. None starts from random weights.
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
        If there is no tomogram, no particle of a kind or no false candidate in the training or in the
        held-out tomograms, or a pick outside its tomogram.
    ConfigError
        If an option does not exist or has a value out of bounds.
    ModelError
        If the verifier to start from is not a network of these widths and kinds.
    """
    begun, fixed = load_start(start, "verifier", "height_px")
    if begun is not None:
        fixed["kinds"] = begun.metadata.kinds
    chosen = make_options(VerifierOptions, {**fixed, **options})
    if begun is not None and chosen.kinds[: len(begun.metadata.kinds)] != begun.metadata.kinds:
        raise ModelError(
            f"{begun.path}: it tells {', '.join(begun.metadata.kinds)} apart, not {', '.join(chosen.kinds)}; "
            "give its kinds first, or train without it."
        )
    if begun is None and chosen.kinds_only:
        raise ConfigError("kinds_only needs a verifier to start from; give start, or train all layers.")
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
    """Cylindrical sections around particles and false candidates."""

    model_kind = "verifier"
    new_layers = KIND_LAYERS
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
        self.classes = verifier_answers(options.kinds)
        self.window_px = options.height_px
        self.inputs = [
            [c.centre_zyx.tolist(), c.normal_zyx.tolist(), c.score.tolist(), c.kind.tolist()]
            for c in (*picks, *candidates)
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
        # A verifier to start from knows its kinds without further examples of them.
        known = () if start is None else start.metadata.kinds[1:]
        present = np.bincount(self._pools[0].true.kind, minlength=len(options.kinds)) > 0
        self._unlabelled = [i for i, kind in enumerate(options.kinds) if kind in known and not present[i]]
        for name, pool in zip(("training", "validation"), self._pools, strict=True):
            counts = np.bincount(pool.true.kind, minlength=len(options.kinds)).tolist()
            labels = [kind if kind != T3SS else "T3SS" for kind in options.kinds]
            for label, count in zip([*labels, "false candidate"], [*counts, len(pool.false)], strict=True):
                if not count and label not in known:
                    raise InputError(
                        f"There is no {label} in the {name} tomograms; give more tomograms, candidates down "
                        "to lower scores, picks with poses, or another validation_fraction."
                    )

    def build_module(self) -> nn.Module:
        widths = (self.options.channels, self.options.hidden, self.options.height_px)
        kinds = len(self.options.kinds)
        module = AxialNet(*widths) if kinds == 1 else AxialKindNet(*widths, kinds)
        if self.options.kinds_only:
            _trained_layers(module)
        # Convolutions of few channels run twice as fast with adjacent channels.
        return module.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]

    def draw_batch(self, phase: int, step: int, world: World) -> Batch:
        """Draw augmented sections (N, azimuths, height, height / 2) and targets (N, kinds + 5)."""
        rng = np.random.default_rng([self.options.seed, 12, step, *world.seed])
        return self._pools[0].draw(rng, world.local_batch(self.options.batch), self.options)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return cross-entropy of the label plus weighted Huber losses of centres and axes of particles."""
        kinds = len(self.options.kinds)
        true = targets[:, :kinds].amax(dim=1) > 0
        pose, wanted = outputs[true, kinds:], targets[true, kinds:]
        offset = F.huber_loss(pose[:, :3], wanted[:, :3])
        correction = F.huber_loss(pose[:, 3:], wanted[:, 3:])
        label = _label_loss(outputs[:, :kinds], targets[:, :kinds], self._unlabelled)
        return label + self.options.offset_weight * offset + self.options.lean_weight * correction

    def validation_set(self) -> Batch:
        return self._pools[1].all_sections(self.options)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the cross-entropy, average precision, precision and recall at 0.5, and pose errors.

        Average precision, precision and recall are those of each kind, and the means over kinds.
        """
        kinds = self.options.kinds
        logits, label = outputs[:, : len(kinds)], targets[:, : len(kinds)]
        # Of the kinds, and of none of them.
        probability = torch.softmax(F.pad(logits, (0, 1)), dim=1).numpy()
        of_kind = {
            kind: score_metrics(probability[:, i], label[:, i].numpy() == 1)
            for i, kind in enumerate(kinds)
            if i == 0 or label[:, i].any()
        }
        means = {
            name: float(np.mean([scores[name] for scores in of_kind.values()]))
            for name in next(iter(of_kind.values()))
        }
        each = {f"{name}_{kind}": v for kind, scores in of_kind.items() for name, v in scores.items()}
        true = label.amax(dim=1).numpy() == 1
        errors = (outputs - targets).numpy()[true, len(kinds) :]
        return {
            "validation_loss": float(_label_loss(logits, label.float(), self._unlabelled)),
            **means,
            **(each if len(of_kind) > 1 else {}),
            "median_offset_px": float(np.median(np.linalg.norm(errors[:, :3], axis=1))),
            "median_lean_degrees": float(np.degrees(np.median(np.linalg.norm(errors[:, 3:], axis=1)))),
        }

    def set_training_mode(self, module: nn.Module) -> None:
        """Leave layers that are not trained in evaluation mode: their statistics stay as they are."""
        module.train(not self.options.kinds_only)
        for name, part in module.named_modules():
            if name.rpartition(".")[2] in KIND_LAYERS:
                part.train()


def _label_loss(logits: Tensor, label: Tensor, unlabelled: Sequence[int]) -> Tensor:
    """Return the cross-entropy of (N, kinds) logits, beside which none of the kinds has the logit 0.

    False candidates may be of the kinds that are not labelled.
    """
    if label.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits, label)
    log_probability = torch.log_softmax(F.pad(logits, (0, 1)), dim=1)
    of_none = torch.logsumexp(log_probability[:, [*unlabelled, logits.shape[1]]], dim=1)
    of_kinds = (label * log_probability[:, :-1]).sum(dim=1)
    return -torch.where(label.any(dim=1), of_kinds, of_none).mean()


def _trained_layers(module: nn.Module) -> None:
    """Fix all weights but those of the layers that tell kinds apart."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in KIND_LAYERS)
