"""Training of the 3D network that looks again at candidates: true ones, and those that were false."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

from t3ssfast.errors import InputError
from t3ssfast.models import (
    BOX_ANSWERS,
    BoxNet,
    LoadedModel,
    ModelMetadata,
    check_device,
    load_model,
    save_model,
)
from t3ssfast.train.augment import augment_values, random_placing, sample
from t3ssfast.train.classifier import average_precision
from t3ssfast.train.data import Source, make_sources, split_sources
from t3ssfast.train.distributed import World, join_world
from t3ssfast.train.loop import Run, optimise, take_weights
from t3ssfast.train.options import VerifierOptions, make_options
from t3ssfast.types import Candidates, Tomogram
from t3ssfast.verify import cut_boxes

__all__ = ["train_verifier"]

Centres = npt.NDArray[np.float64]

# Fewer tomograms than these are not held out whole.
FEW_TOMOGRAMS = 4


def train_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    out: str | os.PathLike[str] = "verifier.pt",
    *,
    start: str | os.PathLike[str] | LoadedModel | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a network that tells T3SS from what a classifier takes for them, by the whole of a candidate.

    Parameters
    ----------
    tomograms
        Protein dark; any voxel size.
    picks
        All T3SS of each tomogram, at the middle of the base; picks of another kind are taught as what they
        are not.
    candidates
        Of each tomogram, what a detection finds in it without a verifier, down to low scores. Those far from
        every T3SS are the false ones.
    out
        The TorchScript file to write; ``<stem>.training.csv`` and ``.png`` come beside it.
    start
        A verifier to go on from, with the grid, box, widths and normalisation it has; None begins anew.
    device
        "cpu", "cuda", "cuda:1" or "auto".
    resume
        Go on from the checkpoint of an interrupted run, if there is one.
    progress
        Show a bar on a terminal.
    **options
        Of `VerifierOptions`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InputError
        Nothing to train on, no T3SS or nothing false in the training or the held-out tomograms, or picks
        outside their tomogram.
    ConfigError
        An option that does not exist or cannot be.
    ModelError
        The verifier to start from is none of these widths.
    """
    begun = None if start is None else load_model(start, kind="verifier")
    if begun is not None:
        options = {**_options_of(begun), **options}
    chosen = make_options(VerifierOptions, options)
    if len(candidates) != len(tomograms):
        raise InputError(
            f"There are candidates of {len(candidates)} tomograms for {len(tomograms)}; give those of each."
        )
    with join_world(check_device(device)) as world:
        return _train(
            *(tomograms, picks, candidates, Path(out), chosen, begun, world), resume=resume, progress=progress
        )


def _options_of(model: LoadedModel) -> dict[str, Any]:
    """Options that must be those of the model that a training starts from."""
    said, recipe = model.metadata, model.metadata.recipe
    given = {"channels": tuple(recipe["channels"])} if "channels" in recipe else {}
    given |= {"hidden": recipe["hidden"]} if "hidden" in recipe else {}
    return given | {
        "box_px": said.window_px,
        "voxel_size_angstrom": said.voxel_size_angstrom,
        "normalisation": said.normalisation,
    }


def _train(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    path: Path,
    chosen: VerifierOptions,
    begun: LoadedModel | None,
    world: World,
    *,
    resume: bool,
    progress: bool,
) -> Path:
    where, share = world.device, replace(chosen, batch=world.share(chosen.batch))
    sources = make_sources(tomograms, None, picks, chosen)
    false = [_false_ones(source, found, chosen) for source, found in zip(sources, candidates, strict=True)]
    pools = _split(sources, false, chosen)
    for name, pool in zip(("training", "validation"), pools, strict=True):
        for what, boxes in (("T3SS", pool.true), ("false candidate", pool.false)):
            if not len(boxes):
                raise InputError(
                    f"There is no {what} in the {name} tomograms; give more tomograms, candidates down to "
                    "lower scores, or another validation_fraction."
                )
    data: list[Any] = [
        (t.name, t.shape, t.voxel_size_angstrom, len(p), len(c))
        for t, p, c in zip(tomograms, picks, candidates, strict=True)
    ]
    if begun is not None:
        data.append(("start", begun.sha256))
    run = Run(path, chosen, data, resume=resume, world=world)
    torch.manual_seed(chosen.seed)
    module = BoxNet(chosen.channels, chosen.hidden, chosen.box_px).to(where)
    if begun is not None:
        take_weights(module, begun)
    boxes, target = pools[1].as_they_are(chosen)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return pools[0].draw(np.random.default_rng([chosen.seed, 12, step, *world.stream]), share)

    def loss(answer: Tensor, target: Tensor) -> Tensor:
        true = target[:, 0] > 0
        missed = F.huber_loss(answer[true, 1:], target[true, 1:])
        return F.binary_cross_entropy_with_logits(answer[:, 0], target[:, 0]) + chosen.offset_weight * missed

    def validate(module: nn.Module) -> dict[str, float]:
        return _figures(module, boxes, target, where, chosen.batch)

    figures = optimise(
        module,
        run,
        batch=batch,
        loss=loss,
        validate=validate,
        figure="average_precision",
        device=where,
        progress=progress,
        title="verifier",
        keep_start=begun is not None,
    )
    metadata = ModelMetadata(
        kind="verifier",
        voxel_size_angstrom=chosen.voxel_size_angstrom,
        window_px=chosen.box_px,
        window_nm=chosen.box_px * chosen.voxel_size_angstrom / 10.0,
        normalisation=chosen.normalisation,
        classes=BOX_ANSWERS,
        recipe={**chosen.to_dict(), "tomograms": len(tomograms)},
        figures=figures,
    )
    if world.leads:
        save_model(module, path, metadata)
    run.finish()
    return path


def _false_ones(source: Source, found: Candidates, options: VerifierOptions) -> Centres:
    """Centres of the false candidates and of what was picked as something else, on the model's grid."""
    centre = source.prepared.from_tomogram(found.sorted_by_score().centre_zyx)
    centre = np.concatenate(
        [_far(source, centre, options)[: options.negatives_per_tomogram], source.others_zyx]
    )
    return _far(source, centre, options)


def _far(source: Source, centres: Centres, options: VerifierOptions) -> Centres:
    """Those that are farther from every T3SS than a false one must be."""
    if len(source.targets_zyx) == 0 or len(centres) == 0:
        return centres
    limit = options.negative_distance_nm * 10.0 / options.voxel_size_angstrom
    distance, _ = cKDTree(source.targets_zyx).query(centres)
    return centres[distance > limit]


def _split(sources: list[Source], false: list[Centres], options: VerifierOptions) -> tuple[_Pool, _Pool]:
    """What is trained on, and what is held out: whole tomograms, or single boxes where there are few."""
    if len(sources) < FEW_TOMOGRAMS:
        return _Pool.collect(sources, false, options).parted(options)
    known = {id(source.prepared): centres for source, centres in zip(sources, false, strict=True)}
    training, held_out = (
        _Pool.collect(part, [known[id(source.prepared)] for source in part], options)
        for part in split_sources(sources, options)
    )
    return training, held_out


def _margins(options: VerifierOptions) -> tuple[int, int]:
    """Voxels of jitter, and half the side of what boxes at any angle are cut from, in the plane."""
    jitter = int(np.ceil(options.jitter_nm * 10.0 / options.voxel_size_angstrom))
    # Corners of turned boxes see the mirror image of the cut-out.
    return jitter, int(np.ceil(0.6 * options.box_px / options.augment.scale[0])) + jitter


@dataclass
class _Pool:
    """What boxes are cut from: (n, depth, side, side) float16, and where in its middle voxel a centre is."""

    true: Tensor
    true_offset: npt.NDArray[np.float64]
    false: Tensor

    @classmethod
    def collect(cls, sources: list[Source], false: list[Centres], options: VerifierOptions) -> _Pool:
        """Everything about the T3SS and the false candidates of the sources."""
        jitter, half = _margins(options)
        sides = (options.box_px + 2 * jitter, 2 * half + 1, 2 * half + 1)
        parts: dict[str, list[Tensor]] = {"true": [], "false": []}
        offsets = [np.zeros((0, 3))]
        for source, others in zip(sources, false, strict=True):
            true = source.centres_in_reach(source.targets_zyx)
            offsets.append(true - np.floor(true + 0.5))
            for name, centres in (("true", true), ("false", source.centres_in_reach(others))):
                middle = np.floor(centres + 0.5).astype(np.int64)
                cut = np.empty((len(middle), *sides), np.float16)
                for chosen, boxes in cut_boxes(source.prepared, middle, sides):
                    cut[chosen] = boxes
                parts[name].append(torch.from_numpy(cut))
        return cls(torch.cat(parts["true"]), np.concatenate(offsets), torch.cat(parts["false"]))

    def parted(self, options: VerifierOptions) -> tuple[_Pool, _Pool]:
        """A larger and a smaller part, at random; at least one of each kind in the smaller."""
        rng = np.random.default_rng([options.seed, 13])
        kept, held = [], []
        for count in (len(self.true), len(self.false)):
            order = rng.permutation(count)
            cut = min(count, max(1, round(options.validation_fraction * count)))
            held.append(np.sort(order[:cut]))
            kept.append(np.sort(order[cut:]))
        return self._chosen(*kept), self._chosen(*held)

    def _chosen(self, true: npt.NDArray[np.int64], false: npt.NDArray[np.int64]) -> _Pool:
        return _Pool(
            self.true[torch.from_numpy(true)],
            self.true_offset[true],
            self.false[torch.from_numpy(false)],
        )

    def draw(self, rng: np.random.Generator, options: VerifierOptions) -> tuple[Tensor, Tensor]:
        """Augmented boxes (N, 1, box, box, box), and (N, 4): whether true, and the offset of the centre."""
        trues = max(1, round(options.positive_share * options.batch))
        chosen = rng.integers(len(self.true), size=trues)
        others = rng.integers(len(self.false), size=options.batch - trues)
        jitter, _ = _margins(options)
        shift = (
            rng.uniform(-1, 1, (options.batch, 3)) * options.jitter_nm * 10.0 / options.voxel_size_angstrom
        )
        whole = np.floor(shift[:, 0] + 0.5).astype(int)
        shift[:, 0] = whole
        flipped = rng.random(options.batch) < 0.5
        centre = np.concatenate([self.true_offset[chosen], np.zeros((len(others), 3))])
        cuts, placings, target = [], [], np.zeros((options.batch, 4), np.float32)
        for k in range(options.batch):
            cut = self.true[chosen[k]] if k < trues else self.false[others[k - trues]]
            part = cut[jitter + whole[k] : jitter + whole[k] + options.box_px]
            # The middle of an even box is its upper middle voxel: mirrored, the first slice has no partner.
            cuts.append(part.flip(0).roll(1, 0) if flipped[k] else part)
            middle = (cut.shape[-1] - 1) / 2
            placing = random_placing(rng, (middle + shift[k, 1], middle + shift[k, 2]), options.augment)
            placings.append(placing)
            if k < trues:
                missed = centre[k] - shift[k]
                target[k, 0] = 1
                target[k, 1] = -missed[0] if flipped[k] else missed[0]
                target[k, 2:] = np.linalg.solve(placing.matrix, missed[1:])
        boxes = sample(
            torch.stack(cuts).float(), placings, options.box_px, mode="bilinear", middle=options.box_px // 2
        )
        return augment_values(boxes, rng, options.augment)[:, None], torch.from_numpy(target)

    def as_they_are(self, options: VerifierOptions) -> tuple[Tensor, npt.NDArray[np.float64]]:
        """All boxes, centred and straight, (N, 1, box, box, box) float16, and (N, 4) as of `draw`."""
        jitter, half = _margins(options)
        inner = slice(half - options.box_px // 2, half - options.box_px // 2 + options.box_px)
        boxes = torch.cat([self.true, self.false])[:, jitter : jitter + options.box_px, inner, inner]
        target = np.zeros((len(boxes), 4))
        target[: len(self.true), 0] = 1
        target[: len(self.true), 1:] = self.true_offset
        return boxes[:, None].contiguous(), target


def _figures(
    module: nn.Module,
    boxes: Tensor,
    target: npt.NDArray[np.float64],
    device: torch.device,
    batch: int,
) -> dict[str, float]:
    """Loss, average precision, precision and recall at 0.5, and by how much centres are missed."""
    answers = torch.cat([module(part.float().to(device)).float().cpu() for part in torch.split(boxes, batch)])
    logits, true = answers[:, 0], target[:, 0] == 1
    score = torch.sigmoid(logits).numpy()
    hits = float((score[true] > 0.5).sum())
    missed = np.linalg.norm(answers[:, 1:].numpy()[true] - target[true, 1:], axis=1)
    return {
        "validation_loss": float(
            F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target[:, 0]).float())
        ),
        "average_precision": average_precision(score, true),
        "precision": hits / max(1.0, float((score > 0.5).sum())),
        "recall": hits / max(1.0, float(true.sum())),
        "median_offset_px": float(np.median(missed)),
    }
