"""Training of the U-Net that sees membrane."""

from __future__ import annotations

import os
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
from t3ssfast.models import ModelMetadata, UNet, check_device, save_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.augment import Placing, augment_values, random_placing, sample
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Run, optimise
from t3ssfast.training.options import SegmenterOptions, make_options

__all__ = ["overlap_figures", "train_segmenter"]


def train_segmenter(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    out: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a U-Net on tomograms and their membrane masks.

    Parameters
    ----------
    tomograms
        Protein dark; any voxel size.
    membranes
        (z, y, x) masks of the same shapes, non-zero is membrane.
    out
        The TorchScript file to write; ``<stem>.training.csv`` and ``.png`` come beside it.
    device
        "cpu", "cuda", "cuda:1" or "auto".
    resume
        Go on from the checkpoint of an interrupted run, if there is one.
    progress
        Show a bar on a terminal.
    **options
        Of `SegmenterOptions`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InputError
        Nothing to train on, shapes that do not match, or masks without any membrane.
    ConfigError
        An option that does not exist or cannot be.
    """
    chosen = make_options(SegmenterOptions, options)
    with join_world(check_device(device)) as world:
        return _train(tomograms, membranes, Path(out), chosen, world, resume=resume, progress=progress)


def _train(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    path: Path,
    chosen: SegmenterOptions,
    world: World,
    *,
    resume: bool,
    progress: bool,
) -> Path:
    where, share = world.device, replace(chosen, batch=world.share(chosen.batch))
    sources = prepare_tomograms(tomograms, membranes, None, chosen)
    if not any(s.membrane is not None and s.membrane.any() for s in sources):
        raise InputError("The membrane masks are empty; give masks in which non-zero voxels are membrane.")
    training, held_out = split_tomograms(sources, chosen)
    data = [(t.name, t.shape, t.voxel_size_angstrom) for t in tomograms]
    run = Run(path, chosen, data, resume=resume, world=world)
    torch.manual_seed(chosen.seed)
    module = UNet(chosen.depth, chosen.base, chosen.slices).to(where)
    # A fifth faster on the CPU, and what tensor cores want.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    slices = _slices_with_membrane(training)
    check = _validation_set(held_out, chosen)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([chosen.seed, 2, step, *world.stream])
        return _draw_batch(training, slices, rng, share)

    def validate(module: nn.Module) -> dict[str, float]:
        return _figures(module, check, where, chosen.batch)

    figures = optimise(
        module,
        run,
        batch=batch,
        loss=membrane_loss,
        validate=validate,
        figure="dice",
        device=where,
        progress=progress,
        title="segmenter",
    )
    metadata = ModelMetadata(
        model_kind="segmenter",
        voxel_size_angstrom=chosen.voxel_size_angstrom,
        normalisation=chosen.normalisation,
        classes=("membrane",),
        slices=chosen.slices,
        recipe={**chosen.to_dict(), "tomograms": len(tomograms)},
        metrics=figures,
    )
    if world.leads:
        save_model(module, path, metadata)
    run.finish()
    return path


def membrane_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice over the batch (Milletari et al. 2016).

    The former makes probabilities of the answers, the latter holds against the few voxels that are membrane.
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum()
    dice = (2 * overlap + 1) / ((probability**2).sum() + (target**2).sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice)


def _slices_with_membrane(sources: list[TrainingTomogram]) -> list[npt.NDArray[np.int64]]:
    """For each source, the slices in which there is membrane."""
    found = []
    for source in sources:
        assert source.membrane is not None, "a segmenter's sources come with masks"
        seen = source.membrane[source.z0 : source.z1].any(axis=(1, 2))
        found.append(np.flatnonzero(seen) + source.z0)
    return found


def _cut(source: TrainingTomogram, z: int, slices: int, placing: Placing, size: int) -> tuple[Tensor, Tensor]:
    """Patch of slices about one, (1, slices, size, size), and target of that one, (1, 1, size, size)."""
    assert source.membrane is not None, "a segmenter's sources come with masks"
    image = torch.from_numpy(source.prepared.slab_around(z, slices))[None]
    mask = torch.from_numpy(source.membrane[z].astype(np.float32))[None, None]
    target = sample(mask, [placing], size, mode="bilinear")
    return sample(image, [placing], size), (target >= 0.5).float()


def _draw_batch(
    sources: list[TrainingTomogram],
    slices: list[npt.NDArray[np.int64]],
    rng: np.random.Generator,
    options: SegmenterOptions,
) -> tuple[Tensor, Tensor]:
    """Augmented patches, (N, slices, patch, patch), and their targets, (N, 1, patch, patch)."""
    images, targets = [], []
    for _ in range(options.batch):
        k = int(rng.integers(len(sources)))
        source = sources[k]
        _, height, width = source.prepared.shape
        centre = (float(rng.uniform(0, height - 1)), float(rng.uniform(0, width - 1)))
        if len(slices[k]) and rng.random() < options.membrane_share:
            z = int(rng.choice(slices[k]))
            assert source.membrane is not None, "a segmenter's sources come with masks"
            y, x = np.divmod(rng.choice(np.flatnonzero(source.membrane[z])), width)
            # Anywhere in the patch, not only in its middle.
            reach = options.patch_px / 3
            centre = (float(y + rng.uniform(-reach, reach)), float(x + rng.uniform(-reach, reach)))
        else:
            z = int(rng.integers(source.z0, source.z1))
        placing = random_placing(rng, centre, options.augment)
        image, target = _cut(source, z, options.slices, placing, options.patch_px)
        if rng.random() < options.inverted_share:
            image, target = -image, torch.zeros_like(target)
        images.append(image)
        targets.append(target)
    return augment_values(torch.cat(images), rng, options.augment), torch.cat(targets)


def _validation_set(sources: list[TrainingTomogram], options: SegmenterOptions) -> tuple[Tensor, Tensor]:
    """Patches as they are, spread over the held-out tomograms; the same ones after every epoch."""
    rng = np.random.default_rng([options.seed, 3])
    pairs = []
    for k in range(options.validation_patches):
        source = sources[k % len(sources)]
        z = int(rng.integers(source.z0, source.z1))
        _, height, width = source.prepared.shape
        half = options.patch_px / 2
        # Whole pixels, so that nothing is interpolated; inside the slice where it is large enough.
        centre = tuple(
            round(float(rng.uniform(min(half, n / 2), max(n - half, n / 2)))) - 0.5 for n in (height, width)
        )
        placing = Placing((centre[0], centre[1]), np.eye(2))
        pairs.append(_cut(source, z, options.slices, placing, options.patch_px))
    images, targets = zip(*pairs, strict=True)
    return torch.cat(images), torch.cat(targets)


def _figures(
    module: nn.Module, check: tuple[Tensor, Tensor], device: torch.device, batch: int
) -> dict[str, float]:
    """Loss, and Dice, precision and recall of the voxels above 0.5, pooled over the patches."""
    logits = torch.cat([module(part.to(device)).float().cpu() for part in torch.split(check[0], batch)])
    found, true = logits > 0, check[1] > 0.5
    overlap = overlap_figures(int((found & true).sum()), int(found.sum()), int(true.sum()))
    return {"validation_loss": float(membrane_loss(logits, check[1])), **overlap}


def overlap_figures(hits: int, found: int, true: int) -> dict[str, float]:
    """Dice, precision and recall from counts of voxels: found and true, found, true."""
    return {
        "dice": 2 * hits / max(1, found + true),
        "precision": hits / max(1, found),
        "recall": hits / max(1, true),
    }
