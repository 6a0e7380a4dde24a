"""Training of the segmenter: a U-Net that finds membrane."""

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

from t3ssfast.errors import InputError
from t3ssfast.models import ModelMetadata, UNet
from t3ssfast.tomogram import StrPath, Tomogram
from t3ssfast.training.augment import Placement, augment_values, random_placement, sample
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Batch, Task, Trainer
from t3ssfast.training.metrics import overlap_metrics
from t3ssfast.training.options import SegmenterOptions, make_options

__all__ = ["train_segmenter"]


def train_segmenter(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    out: StrPath,
    *,
    contrast: str | Sequence[str] = "auto",
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a U-Net on tomograms and their membrane masks.

    Parameters
    ----------
    tomograms
        Tomograms of any voxel size and contrast.
    membranes
        (z, y, x) masks of the same shapes; non-zero voxels are membrane.
    out
        Model file to write, safetensors or TorchScript; see `t3ssfast.models.save_trained`.
        ``<stem>.training.csv`` and ``.png`` are written beside it.
    contrast
        Contrast of protein in the tomograms: "dark", "light", or "auto", which finds it as `detect` does; or
        a sequence with that of each.
    device
        "cpu", "cuda", "cuda:1" or "auto".
    resume
        Resume from the checkpoint of an interrupted run with the same options and data. Without one, the run
        starts from the beginning.
    progress
        Show a progress bar on a terminal.
    **options
        Fields of `SegmenterOptions`.

    Returns
    -------
    Path of the model file.

    Raises
    ------
    InputError
        If there is no tomogram, shapes do not match, or all masks are empty.
    ConfigError
        If an option does not exist or has a value out of bounds.

    Warns
    -----
    CheckpointWarning
        If there is a checkpoint of other options or data; it is left alone.
    """
    chosen = make_options(SegmenterOptions, options)
    with join_world(device) as world:
        task = SegmenterTask(chosen, prepare_tomograms(tomograms, membranes, None, chosen, contrast))
        return Trainer(task, out, world, resume=resume, progress=progress).train()


class SegmenterTask(Task[SegmenterOptions]):
    """Patches of slices, and the membrane mask of the middle slice."""

    model_kind = "segmenter"
    classes = ("membrane",)
    metric = "dice"

    def __init__(self, options: SegmenterOptions, tomograms: Sequence[TrainingTomogram]) -> None:
        if not any(t.membrane is not None and t.membrane.any() for t in tomograms):
            raise InputError("All membrane masks are empty; give masks whose non-zero voxels are membrane.")
        self.options, self.tomograms = options, tomograms
        self.validation_batch = options.batch
        self._training, self._held_out = split_tomograms(tomograms, options)
        self._membrane_slices = [
            np.flatnonzero(_membrane(t)[t.z0 : t.z1].any(axis=(1, 2))) + t.z0 for t in self._training
        ]

    def build_module(self) -> nn.Module:
        module = UNet(self.options.depth, self.options.base, self.options.slices)
        # A fifth faster on the CPU, and the layout for tensor cores.
        return module.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]

    def draw_batch(self, phase: int, step: int, world: World) -> Batch:
        """Draw augmented patches (N, slices, patch, patch) and targets (N, 1, patch, patch)."""
        options = self.options
        rng = np.random.default_rng([options.seed, 2, step, *world.seed])
        images, targets = [], []
        for _ in range(world.local_batch(options.batch)):
            k = int(rng.integers(len(self._training)))
            source, slices = self._training[k], self._membrane_slices[k]
            _, height, width = source.prepared.shape
            centre = (float(rng.uniform(0, height - 1)), float(rng.uniform(0, width - 1)))
            if len(slices) and rng.random() < options.membrane_share:
                z = int(rng.choice(slices))
                y, x = np.divmod(rng.choice(np.flatnonzero(_membrane(source)[z])), width)
                # Anywhere in the patch, not only in its middle.
                margin = options.patch_px / 3
                centre = (float(y + rng.uniform(-margin, margin)), float(x + rng.uniform(-margin, margin)))
            else:
                z = int(rng.integers(source.z0, source.z1))
            image, target = self._patch(source, z, random_placement(rng, centre, options.augment))
            if rng.random() < options.inverted_share:
                image, target = -image, torch.zeros_like(target)
            images.append(image)
            targets.append(target)
        return augment_values(torch.cat(images), rng, options.augment), torch.cat(targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return binary cross-entropy plus soft Dice loss over the batch (Milletari et al. 2016)."""
        # Cross-entropy makes the outputs probabilities; Dice counters the small fraction of membrane voxels.
        probability = torch.sigmoid(outputs)
        overlap = (probability * targets).sum()
        dice = (2 * overlap + 1) / ((probability**2).sum() + (targets**2).sum() + 1)
        return F.binary_cross_entropy_with_logits(outputs, targets) + (1 - dice)

    def validation_set(self) -> Batch:
        """Cut patches without augmentation from all held-out tomograms."""
        rng = np.random.default_rng([self.options.seed, 3])
        half = self.options.patch_px / 2
        pairs = []
        for k in range(self.options.validation_patches):
            source = self._held_out[k % len(self._held_out)]
            z = int(rng.integers(source.z0, source.z1))
            # Whole pixels, so that nothing is interpolated; inside the slice where it is large enough.
            y, x = (
                round(float(rng.uniform(min(half, n / 2), max(n - half, n / 2)))) - 0.5
                for n in source.prepared.shape[1:]
            )
            pairs.append(self._patch(source, z, Placement((y, x), np.eye(2))))
        images, targets = zip(*pairs, strict=True)
        return torch.cat(images), torch.cat(targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the loss, and Dice, precision and recall of the voxels above 0.5, over all patches."""
        found, true = outputs > 0, targets > 0.5
        overlap = overlap_metrics(int((found & true).sum()), int(found.sum()), int(true.sum()))
        return {"validation_loss": float(self.loss(outputs, targets)), **overlap}

    def metadata(self) -> ModelMetadata:
        return replace(super().metadata(), slices=self.options.slices)

    def _patch(self, source: TrainingTomogram, z: int, placement: Placement) -> Batch:
        """Cut a patch (1, slices, size, size) and the target of its middle slice (1, 1, size, size)."""
        size = self.options.patch_px
        image = torch.from_numpy(source.prepared.slab_around(z, self.options.slices))[None]
        mask = torch.from_numpy(_membrane(source)[z].astype(np.float32))[None, None]
        target = sample(mask, [placement], size, mode="bilinear")
        return sample(image, [placement], size), (target >= 0.5).float()


def _membrane(source: TrainingTomogram) -> npt.NDArray[np.uint8]:
    assert source.membrane is not None, "every tomogram of a segmenter comes with a mask"
    return source.membrane
