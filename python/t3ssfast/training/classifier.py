"""Training of the classifier: a LeNet on few positive windows, with rounds of hard-negative mining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.errors import InputError
from t3ssfast.models import LeNet, LoadedModel, ModelMetadata
from t3ssfast.tomogram import StrPath, Tomogram
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Batch, Task, Trainer, load_start
from t3ssfast.training.metrics import score_metrics
from t3ssfast.training.negatives import ParticleStatistics, draw_negatives, is_negative, mine_negatives
from t3ssfast.training.options import ClassifierOptions, make_options
from t3ssfast.training.windows import WindowPool, cut_out, voxels_around

__all__ = ["ClassifierTask", "train_classifier"]


def train_classifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    membranes: Sequence[npt.NDArray[Any] | None] | None = None,
    out: StrPath = "classifier.safetensors",
    *,
    start: StrPath | LoadedModel | None = None,
    contrast: str | Sequence[str] = "auto",
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a LeNet on tomograms and the T3SS picked in them.

    Picks of kind "t3ss" are positives; picks of any other kind are negatives. The other negatives are windows
    farther than `negative_distance_nm` from every T3SS: near the membrane, drawn by their statistics, and in
    each further round those that the current model scores highest.

    Parameters
    ----------
    tomograms
        Tomograms of any voxel size and contrast.
    picks
        All T3SS of each tomogram, centred on the base.
    membranes
        (z, y, x) masks of the same shapes; None draws negatives from the whole tomogram.
    start
        Classifier to start from; the grid, window, widths and normalisation are taken from it. None starts
        from random weights.
    out, contrast, device, resume, progress
        As for `train_segmenter`.
    **options
        Fields of `ClassifierOptions`.

    Returns
    -------
    Path of the model file.

    Raises
    ------
    InputError
        If there is no tomogram, no T3SS among the picks of the training or of the held-out tomograms, or a
        pick outside its tomogram.
    ConfigError
        If an option does not exist or has a value out of bounds.
    ModelError
        If the classifier to start from is not a LeNet of these widths.
    """
    begun, fixed = load_start(start, "classifier", "window_px")
    chosen = make_options(ClassifierOptions, {**fixed, **options})
    with join_world(device) as world:
        prepared = prepare_tomograms(tomograms, membranes, picks, chosen, contrast)
        task = ClassifierTask(chosen, prepared, begun)
        return Trainer(task, out, world, resume=resume, progress=progress).train()


class ClassifierTask(Task[ClassifierOptions]):
    """Windows around T3SS, and negatives of which the hard ones are mined between the phases."""

    model_kind = "classifier"
    classes = ("background", "t3ss")
    metric = "average_precision"
    validation_batch = 1024

    def __init__(
        self, options: ClassifierOptions, tomograms: Sequence[TrainingTomogram], start: LoadedModel | None
    ) -> None:
        self.options, self.tomograms, self.start = options, tomograms, start
        self.phases, self.window_px = options.rounds + 1, options.window_px
        self._parts = split_tomograms(tomograms, options)
        for name, part in zip(("training", "validation"), self._parts, strict=True):
            if not any(t.in_slices(t.targets_zyx).any() for t in part):
                raise InputError(
                    f"There is no T3SS among the picks of the {name} tomograms; give tomograms with picks, "
                    "at least two, or change validation_fraction."
                )
        self._pools = [_collect(part, options, 4 + k) for k, part in enumerate(self._parts)]
        self._mined = [[np.zeros((0, 3), np.int64) for _ in part] for part in self._parts]

    def build_module(self) -> nn.Module:
        options = self.options
        return LeNet(options.channels, options.hidden, len(self.classes), options.window_px)

    def mine(self, phase: int, module: nn.Module) -> dict[str, Any]:
        """Add each tomogram's false positives with the highest scores to those of earlier phases."""
        model = LoadedModel(module, super().metadata(), "", "<module>")
        mined = []
        for k, (part, known) in enumerate(zip(self._parts, self._mined, strict=True)):
            rng = np.random.default_rng([self.options.seed, 6 + k, phase])
            new = mine_negatives(model, part, self.options, rng)
            mined.append([torch.from_numpy(np.concatenate(pair)) for pair in zip(known, new, strict=True)])
        return {"mined": mined}

    def add_mined(self, mined: dict[str, Any]) -> None:
        if mined:
            self._mined = [[positions.numpy() for positions in part] for part in mined["mined"]]
        for pool, part, positions in zip(self._pools, self._parts, self._mined, strict=True):
            pool.mined = cut_out(part, positions, self.options)

    def draw_batch(self, phase: int, step: int, world: World) -> Batch:
        """Draw augmented windows (N, 1, window, window) and their classes (N,)."""
        rng = np.random.default_rng([self.options.seed, 8, phase, step, *world.seed])
        return self._pools[0].draw(rng, world.local_batch(self.options.batch), self.options)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def validation_set(self) -> Batch:
        return self._pools[1].all_windows(self.options)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the loss, average precision, and precision and recall at a score of 0.5."""
        score = torch.softmax(outputs, dim=1)[:, 1].numpy()
        return {
            "validation_loss": float(F.cross_entropy(outputs, targets)),
            **score_metrics(score, targets.numpy() == 1),
        }

    def metadata(self) -> ModelMetadata:
        start = None if self.start is None else self.start.metadata.preselect
        # A coarse scan fits any classifier, and excludes far more than bounds on statistics do.
        preselect = CoarseScan().to_dict() if start is None else start
        return replace(super().metadata(), preselect=preselect)


def _collect(tomograms: Sequence[TrainingTomogram], options: ClassifierOptions, stream: int) -> WindowPool:
    """Cut out all windows but the mined ones."""
    rng = np.random.default_rng([options.seed, stream])
    reach = round(options.jitter_z_nm * 10.0 / options.voxel_size_angstrom)
    positive = [voxels_around(t, t.targets_zyx, reach) for t in tomograms]
    particles = ParticleStatistics.measure(tomograms, options) if options.negatives == "statistics" else None
    random = [draw_negatives(t, rng, options, particles) for t in tomograms]
    other = [voxels_around(t, t.others_zyx, reach) for t in tomograms]
    other = [v[is_negative(t, v, options)] for t, v in zip(tomograms, other, strict=True)]
    mined = [np.zeros((0, 3), np.int64) for _ in tomograms]
    return WindowPool(*(cut_out(tomograms, p, options) for p in (positive, random, other, mined)))
