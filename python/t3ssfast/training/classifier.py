"""Training of the LeNet that judges windows: few true ones, and rounds of mining false ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor, nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.preselect import DEFAULT_STATISTICS, CoarseScan, learn_rule, read_preselection
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.errors import InputError
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LeNet, LoadedModel, ModelMetadata, check_device, load_model, save_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.augment import augment_values, random_placing, sample
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Run, optimise, take_weights
from t3ssfast.training.options import ClassifierOptions, make_options

__all__ = ["average_precision", "train_classifier"]

Positions = npt.NDArray[np.int64]
# Half side of the cut-outs from which turned and scaled windows are sampled, in windows: half a diagonal.
CUT_HALF = 0.5 * 2**0.5
# Two mined windows of a slice are at least this far apart.
MINED_DISTANCE_NM = 7.0
# Slices of each tomogram from which random negatives are drawn.
NEGATIVE_SLICES = 24
CLASSES = ("background", "t3ss")


def train_classifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    membranes: Sequence[npt.NDArray[Any] | None] | None = None,
    out: str | os.PathLike[str] = "classifier.pt",
    *,
    start: str | os.PathLike[str] | LoadedModel | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a LeNet on tomograms and the T3SS picked in them.

    Picks of the kind "t3ss" are the particles; picks of any other kind are taught as what they are not.
    Windows farther from every particle than `negative_distance_nm` are negatives: first random ones near the
    membrane, then, round by round, those that the model so far takes for particles.

    Parameters
    ----------
    tomograms
        Protein dark; any voxel size.
    picks
        One `Candidates` for each tomogram, at the middle of the T3SS's base.
    membranes
        (z, y, x) masks of the same shapes; None: negatives come from anywhere.
    out
        The TorchScript file to write; ``<stem>.training.csv`` and ``.png`` come beside it.
    start
        A classifier to go on from, with the grid, window, widths and normalisation it has; None begins anew.
    device
        "cpu", "cuda", "cuda:1" or "auto".
    resume
        Go on from the checkpoint of an interrupted run, if there is one.
    progress
        Show a bar on a terminal.
    **options
        Of `ClassifierOptions`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InputError
        Nothing to train on, no T3SS among the picks of the training or of the held-out tomograms, or picks
        outside their tomogram.
    ConfigError
        An option that does not exist or cannot be.
    ModelError
        The classifier to start from is no LeNet of these widths.
    """
    begun = None if start is None else load_model(start, model_kind="classifier")
    if begun is not None:
        options = {**_options_of(begun), **options}
    chosen = make_options(ClassifierOptions, options)
    with join_world(check_device(device)) as world:
        return _train(
            *(tomograms, picks, membranes, Path(out), chosen, begun, world), resume=resume, progress=progress
        )


def _options_of(model: LoadedModel) -> dict[str, Any]:
    """Options that must be those of the model that a training starts from."""
    said, recipe = model.metadata, model.metadata.recipe
    given = {name: tuple(recipe[name]) for name in ("channels", "hidden") if name in recipe}
    return given | {
        "window_px": said.window_px,
        "voxel_size_angstrom": said.voxel_size_angstrom,
        "normalisation": said.normalisation,
    }


def _train(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    membranes: Sequence[npt.NDArray[Any] | None] | None,
    path: Path,
    chosen: ClassifierOptions,
    begun: LoadedModel | None,
    world: World,
    *,
    resume: bool,
    progress: bool,
) -> Path:
    where, share = world.device, replace(chosen, batch=world.share(chosen.batch))
    sources = prepare_tomograms(tomograms, membranes, picks, chosen)
    training, held_out = split_tomograms(sources, chosen)
    for name, part in (("training", training), ("validation", held_out)):
        if not any(len(s.centres_in_reach(s.targets_zyx)) for s in part):
            raise InputError(
                f"There is no T3SS among the picks of the {name} tomograms; give tomograms with picks, "
                "at least two, or change validation_fraction."
            )
    data: list[Any] = [
        (t.name, t.shape, t.voxel_size_angstrom, len(p)) for t, p in zip(tomograms, picks, strict=True)
    ]
    if begun is not None:
        data.append(("start", begun.sha256))
    run = Run(path, chosen, data, resume=resume, world=world)
    torch.manual_seed(chosen.seed)
    module = LeNet(chosen.channels, chosen.hidden, len(CLASSES), chosen.window_px).to(where)
    if begun is not None:
        take_weights(module, begun)
    pools = [_Pool.collect(part, chosen, [chosen.seed, 4 + k]) for k, part in enumerate((training, held_out))]
    none = np.zeros((0, 3), np.int64)
    mined = [[none for _ in part] for part in (training, held_out)]
    if "mined" in run.state["extra"]:
        mined = [[p.numpy() for p in part] for part in run.state["extra"]["mined"]]
    metadata = ModelMetadata(
        model_kind="classifier",
        voxel_size_angstrom=chosen.voxel_size_angstrom,
        window_px=chosen.window_px,
        window_nm=chosen.window_px * chosen.voxel_size_angstrom / 10.0,
        normalisation=chosen.normalisation,
        classes=CLASSES,
    )
    figures: dict[str, float] = {}
    for phase in range(run.state["phase"], chosen.rounds + 1):
        if phase > run.state["phase"]:
            for k, part in enumerate((training, held_out)):
                current = LoadedModel(module.eval(), metadata, "", str(path))
                new = _mine(current, part, chosen, [chosen.seed, 6 + k, phase])
                mined[k] = [np.concatenate(pair) for pair in zip(mined[k], new, strict=True)]
            kept = [[torch.from_numpy(p) for p in part] for part in mined]
            run.begin_phase(phase, module, mined=kept)
        for pool, part, known in zip(pools, (training, held_out), mined, strict=True):
            pool.hard = _cut_all(part, known, chosen)
        windows, target = pools[1].as_they_are(chosen)

        def batch(step: int, phase: int = phase) -> tuple[Tensor, Tensor]:
            return pools[0].draw(np.random.default_rng([chosen.seed, 8, phase, step, *world.stream]), share)

        def validate(
            module: nn.Module, windows: Tensor = windows, target: Tensor = target
        ) -> dict[str, float]:
            return _figures(module, windows, target, where)

        figures = optimise(
            module,
            run,
            batch=batch,
            loss=F.cross_entropy,
            validate=validate,
            figure="average_precision",
            device=where,
            progress=progress,
            title=f"classifier, round {phase}",
            keep_start=begun is not None,
        )
    metadata = replace(
        metadata,
        recipe={**chosen.to_dict(), "tomograms": len(tomograms)},
        preselect=_preselection(pools[0], chosen, begun),
        metrics=figures,
    )
    if world.leads:
        save_model(module, path, metadata)
    run.finish()
    return path


def _preselection(
    pool: _Pool, options: ClassifierOptions, begun: LoadedModel | None
) -> dict[str, Any] | None:
    """The coarse look of the classifier that was started from, which fits any; else a rule of its own."""
    if begun is not None and isinstance(read_preselection(begun.metadata.preselect), CoarseScan):
        return begun.metadata.preselect
    return _preselect_rule(pool, options)


def _preselect_rule(pool: _Pool, options: ClassifierOptions) -> dict[str, Any] | None:
    """The rule over statistics that goes with the classifier, learned from its own windows.

    The positives are the particles' windows, straight, in the middle and off it by the jitter on four sides.
    """
    jitter = round(options.jitter_nm * 10.0 / options.voxel_size_angstrom)
    shifts = ((0, 0), (jitter, 0), (-jitter, 0), (0, jitter), (0, -jitter))
    start = pool.positive.shape[-1] // 2 - options.window_px // 2

    def statistics(cut: Tensor, shifts: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float32]:
        size = options.window_px
        windows = [cut[:, start + y : start + y + size, start + x : start + x + size] for y, x in shifts]
        image = torch.cat(windows).float().contiguous().numpy()
        answer: npt.NDArray[np.float32] = window_statistics(image, size, DEFAULT_STATISTICS)
        return answer.reshape(len(DEFAULT_STATISTICS), -1)

    return learn_rule(
        statistics(pool.positive, shifts),
        DEFAULT_STATISTICS,
        statistics(pool.random, ((0, 0),)),
        size=options.window_px,
    ).to_dict()


def _cut_side(options: ClassifierOptions) -> int:
    """Odd side of a cut-out that holds a window at any angle and scale, off centre by the jitter."""
    jitter = options.jitter_nm * 10.0 / options.voxel_size_angstrom
    half = CUT_HALF * options.window_px / options.augment.scale[0] + jitter
    # Beyond a scale of 0.9 the corners of a turned window see the mirror image of the cut-out instead.
    return 2 * int(np.ceil(min(half, 0.8 * options.window_px))) + 1


def _cut_all(
    sources: list[TrainingTomogram], positions: list[Positions], options: ClassifierOptions
) -> Tensor:
    """Cut-outs centred at positions, (n, side, side) float16; beyond a slice's edge its mirror image."""
    side = _cut_side(options)
    half = side // 2
    parts = [np.zeros((0, side, side), np.float16)]
    for source, where in zip(sources, positions, strict=True):
        cut = np.empty((len(where), side, side), np.float16)
        for z in np.unique(where[:, 0]):
            image = np.pad(source.prepared.slab(int(z), int(z) + 1)[0], half, mode="reflect")
            for k in np.flatnonzero(where[:, 0] == z):
                y, x = where[k, 1:]
                cut[k] = image[y : y + side, x : x + side]
        parts.append(cut)
    return torch.from_numpy(np.concatenate(parts))


@dataclass
class _Pool:
    """Cut-outs to draw windows from: (n, side, side) float16 each."""

    positive: Tensor
    random: Tensor
    other: Tensor
    hard: Tensor

    @classmethod
    def collect(cls, sources: list[TrainingTomogram], options: ClassifierOptions, seed: list[int]) -> _Pool:
        """Everything but the mined ones."""
        rng = np.random.default_rng(seed)
        nm = options.voxel_size_angstrom / 10.0
        reach = round(options.jitter_z_nm / nm)
        positive, other, random = [], [], []
        for source in sources:
            positive.append(_around(source, source.targets_zyx, reach))
            around_others = _around(source, source.others_zyx, reach)
            other.append(around_others[_far(source, around_others, options)])
            random.append(_random_negatives(source, rng, options))
        return cls(
            _cut_all(sources, positive, options),
            _cut_all(sources, random, options),
            _cut_all(sources, other, options),
            _cut_all([], [], options),
        )

    def draw(self, rng: np.random.Generator, options: ClassifierOptions) -> tuple[Tensor, Tensor]:
        """Augmented windows (N, 1, window, window) and their classes (N,)."""
        positives = max(1, round(options.positive_share * options.batch))
        easy, hard = self.random, torch.cat([self.other, self.hard]) if len(self.hard) else self.other
        wanted = options.batch - positives
        hards = round(options.hard_share * wanted) if len(hard) else 0
        if len(easy) == 0:
            hards = wanted
        cut = torch.cat(
            [
                pool[torch.from_numpy(rng.integers(len(pool), size=count))]
                for pool, count in ((self.positive, positives), (hard, hards), (easy, wanted - hards))
                if count
            ]
        ).float()[:, None]
        jitter = options.jitter_nm * 10.0 / options.voxel_size_angstrom
        middle = cut.shape[-1] // 2
        placings = []
        for _ in range(len(cut)):
            # Evenly over a disk.
            angle, radius = rng.uniform(0, 2 * np.pi), jitter * np.sqrt(rng.random())
            centre = (middle + radius * np.sin(angle), middle + radius * np.cos(angle))
            placings.append(random_placing(rng, (float(centre[0]), float(centre[1])), options.augment))
        windows = sample(cut, placings, options.window_px, middle=options.window_px // 2)
        target = torch.zeros(len(cut), dtype=torch.long)
        target[:positives] = 1
        return augment_values(windows, rng, options.augment), target

    def as_they_are(self, options: ClassifierOptions) -> tuple[Tensor, Tensor]:
        """All windows, straight and centred, (N, 1, window, window) float16, and their classes (N,)."""
        start = self.positive.shape[-1] // 2 - options.window_px // 2
        inner = slice(start, start + options.window_px)
        parts = [p[:, None, inner, inner] for p in (self.positive, self.random, self.other, self.hard)]
        target = torch.zeros(sum(len(p) for p in parts), dtype=torch.long)
        target[: len(self.positive)] = 1
        return torch.cat(parts), target


def _around(source: TrainingTomogram, centres: npt.NDArray[np.float64], reach: int) -> Positions:
    """Voxels at centres and in the slices above and below, up to a reach, as far as there are slices."""
    found = [
        (
            z,
            int(np.clip(round(y), 0, source.prepared.shape[1] - 1)),
            int(np.clip(round(x), 0, source.prepared.shape[2] - 1)),
        )
        for cz, y, x in centres
        for z in range(round(cz) - reach, round(cz) + reach + 1)
        if source.z0 <= z < source.z1
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def _far(source: TrainingTomogram, positions: Positions, options: ClassifierOptions) -> npt.NDArray[np.bool_]:
    """Which positions are farther from every T3SS than a negative must be."""
    if len(source.targets_zyx) == 0 or len(positions) == 0:
        return np.ones(len(positions), bool)
    limit = options.negative_distance_nm * 10.0 / options.voxel_size_angstrom
    distance, _ = cKDTree(source.targets_zyx).query(positions)
    return np.asarray(distance > limit)


def _regions(
    source: TrainingTomogram, slices: list[int], options: ClassifierOptions, *, enclosed: bool
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Slices, and where their windows may be: in the search region, or everywhere without a membrane."""
    if source.membrane is None:
        everywhere = np.ones(source.prepared.shape[1:], np.uint8)
        yield from ((z, everywhere) for z in slices)
        return
    voxel_size, distance_nm = source.prepared.voxel_size_angstrom, options.search_distance_nm
    search = SearchRegion(source.membrane, voxel_size, distance_nm, enclosed=enclosed)
    yield from ((z, search.slab(z, z + 1)[0]) for z in slices)


def _some_slices(source: TrainingTomogram, count: int, rng: np.random.Generator) -> list[int]:
    """Different slices of a source, in order."""
    available = np.arange(source.z0, source.z1)
    return sorted(rng.choice(available, min(count, len(available)), replace=False).tolist())


def _random_negatives(
    source: TrainingTomogram, rng: np.random.Generator, options: ClassifierOptions
) -> Positions:
    """Windows without a T3SS: most of them near the membrane, some anywhere."""
    slices = _some_slices(source, NEGATIVE_SLICES, rng)
    near = []
    for z, region in _regions(source, slices, options, enclosed=False):
        yx = np.argwhere(region)
        near.append(np.column_stack([np.full(len(yx), z), yx]))
    candidates = np.concatenate(near)
    wanted = options.negatives_per_tomogram
    elsewhere = wanted if len(candidates) == 0 else round(options.elsewhere_share * wanted)
    _, height, width = source.prepared.shape
    anywhere = np.column_stack(
        [
            rng.choice(slices, elsewhere),
            rng.integers(0, height, elsewhere),
            rng.integers(0, width, elsewhere),
        ]
    )
    chosen = (
        candidates[rng.integers(len(candidates), size=wanted - elsewhere)] if len(candidates) else candidates
    )
    positions = np.concatenate([chosen, anywhere]).astype(np.int64)
    return positions[_far(source, positions, options)]


def _mine(
    model: LoadedModel, sources: list[TrainingTomogram], options: ClassifierOptions, seed: list[int]
) -> list[Positions]:
    """False positives of every source: the best-scored windows far from any T3SS."""
    rng = np.random.default_rng(seed)
    found = []
    side = 2 * round(MINED_DISTANCE_NM * 10.0 / options.voxel_size_angstrom) + 1
    for source in sources:
        positions, scores = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
        slices = _some_slices(source, options.mined_slices, rng)
        for z, region in _regions(source, slices, options, enclosed=True):
            score = np.zeros(region.shape, np.float32)
            slab = source.prepared.slab(z, z + 1)
            index, probability = classify_slab(slab, region[None], model, device=model.device)
            score.flat[index] = probability
            peak = (score >= options.mined_score) & (score == ndimage.maximum_filter(score, side))
            yx = np.argwhere(peak)
            where = np.column_stack([np.full(len(yx), z), yx]).astype(np.int64)
            far = _far(source, where, options)
            positions.append(where[far])
            scores.append(score[peak][far])
        order = np.argsort(-np.concatenate(scores), kind="stable")[: options.mined_per_tomogram]
        found.append(np.concatenate(positions)[order])
    return found


def average_precision(score: npt.NDArray[np.float32], true: npt.NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve, as the mean precision at every true window."""
    ranked = true[np.argsort(-score, kind="stable")]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean()) if ranked.any() else 0.0


def _figures(module: nn.Module, windows: Tensor, target: Tensor, device: torch.device) -> dict[str, float]:
    """Loss, average precision, and precision and recall at 0.5, over the held-out windows."""
    logits = torch.cat([module(part.float().to(device)).float().cpu() for part in torch.split(windows, 1024)])
    score = torch.softmax(logits, dim=1)[:, 1].numpy()
    true = target.numpy() == 1
    hits = float((score[true] > 0.5).sum())
    return {
        "validation_loss": float(F.cross_entropy(logits, target)),
        "average_precision": average_precision(score, true),
        "precision": hits / max(1.0, float((score > 0.5).sum())),
        "recall": hits / max(1.0, float(true.sum())),
    }
