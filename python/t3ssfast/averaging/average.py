"""Subtomogram averaging: refine poses, reconstruct two independent half maps, estimate the resolution."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.extract import box_voxels, open_for_candidates
from t3ssfast.averaging.refine import Refinement, State
from t3ssfast.averaging.resolution import FourierShellCorrelation
from t3ssfast.averaging.result import Average
from t3ssfast.averaging.stack import ParticleStack
from t3ssfast.candidates import PARTICLE_KINDS, T3SS, Candidates
from t3ssfast.detection.config import ALL_KINDS
from t3ssfast.detection.find_contrast import contrast_of_each
from t3ssfast.detection.tell_kinds import tell_kinds
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models import check_device, code_version, load_model
from t3ssfast.runtime.checkpoint import CheckpointStore, key_of
from t3ssfast.runtime.progress import Stages
from t3ssfast.runtime.threads import default_threads
from t3ssfast.tomogram import StrPath, Tomogram, TomogramSource

__all__ = ["Average", "AverageConfig", "average", "soft_mask"]

MAX_FOLD = 60
MIN_BOX_VOXELS = 16


def average(
    tomograms: TomogramSource | Sequence[TomogramSource],
    candidates: Candidates | Sequence[Candidates],
    box: int | None = None,
    *,
    box_nm: float | None = None,
    symmetry: str = "C1",
    mask: npt.NDArray[Any] | None = None,
    reference: npt.NDArray[Any] | None = None,
    config: AverageConfig | None = None,
    device: str = "auto",
    folder: StrPath | None = None,
    progress: bool = False,
) -> Average:
    """Align and average the particles at candidates.

    Parameters
    ----------
    tomograms
        One or several paths, `Tomogram` or arrays. Boxes have the voxel size of the first.
    candidates
        One `Candidates` per tomogram, in the same order.
    box, box_nm
        Edge of the boxes in voxels (even), or in nm.
    symmetry
        "C1" to "C60", about the particle's axis.
    mask
        (box, box, box), 0 to 1; None: a soft cylinder of `AverageConfig.mask_radius_nm`.
    reference
        (box, box, box) initial reference, protein bright, axis along +z, low-pass filtered to
        `AverageConfig.initial_resolution_angstrom`. None: each half set starts from its own average.
    config
        Other options.
    device
        "auto", "cpu", "cuda", "cuda:1".
    folder
        Folder of the checkpoint. The state is saved after each iteration. A run with the same particles and
        options resumes from it, with bit-identical results.
    progress
        Show progress bars on a terminal.

    Raises
    ------
    ConfigError, InputError
        If an option, the tomograms or the candidates are invalid.

    Warns
    -----
    CheckpointWarning
        If `folder` holds a checkpoint of other particles or options, so that the run starts from the
        beginning.
    """
    config = AverageConfig() if config is None else config
    tomograms, candidates = _matched(tomograms, candidates)
    given, candidates = candidates, [_chosen(some, config.kind) for some in candidates]
    if any(map(len, given)) and not any(map(len, candidates)):
        raise InputError(
            f"None of the {sum(map(len, given))} candidates is of the kind {config.kind!r}; give another "
            f"kind (--kind), or {ALL_KINDS!r}."
        )
    contrasts = contrast_of_each(tomograms, config.contrast)
    config = replace(config, contrast=contrasts[0] if len(set(contrasts)) == 1 else tuple(contrasts))
    order = re.fullmatch(r"[Cc]([1-9][0-9]?)", symmetry)
    if order is None or int(order[1]) > MAX_FOLD:
        raise ConfigError(f"The symmetry is {symmetry!r}; give C1 to C{MAX_FOLD}.")
    voxel_size = tomograms[0].voxel_size_angstrom
    edge = box_voxels(box, box_nm, voxel_size)
    if edge % 2 or edge < MIN_BOX_VOXELS:
        raise ConfigError(f"The box is {edge} voxels; give an even number, at least {MIN_BOX_VOXELS}.")
    torch_device = check_device(device, kernels=False)
    before, threads = torch.get_num_threads(), default_threads()
    with ExitStack() as restore, torch.inference_mode(), Stages(progress) as stages:
        # Sums depend on the number of threads: PyTorch uses one, and particles are processed in parallel.
        restore.callback(torch.set_num_threads, before)
        torch.set_num_threads(1)
        stack = ParticleStack(tomograms, candidates, edge, config, torch_device)
        of_kind = _of_kind(tomograms, candidates, contrasts, config, stages)
        soft = _checked_volume("mask", mask, edge, torch_device)
        if soft is None:
            nm = voxel_size / 10
            soft = soft_mask(edge, config.mask_radius_nm / nm, config.mask_edge_nm / nm, torch_device)
        soft, fold = soft.clamp(0, 1), int(order[1])
        start = _checked_volume("reference", reference, edge, torch_device)
        refinement = Refinement(stack, soft, fold, config, start, config.threads or threads, of_kind)
        return _result(refinement, _refine(refinement, folder, stages), symmetry.upper())


def _chosen(candidates: Candidates, kind: str) -> Candidates:
    """Return the candidates of a kind; of T3SS also those that no model has told the kind of."""
    if kind == ALL_KINDS:
        return candidates
    if kind != T3SS:
        return candidates.of_kinds(kind)
    # Class labels of other programs say nothing about the kind.
    others = [known for known in PARTICLE_KINDS if known != T3SS]
    return candidates[~np.isin(candidates.kind, others)]


def _of_kind(
    tomograms: Sequence[Tomogram],
    candidates: Sequence[Candidates],
    contrasts: Sequence[str],
    config: AverageConfig,
    stages: Stages,
) -> npt.NDArray[np.bool_]:
    """Return which particles, (n,), the bundled verifier takes for the kind that is averaged."""
    verifier = load_model(None, model_kind="verifier")
    known = verifier.metadata.kinds
    if not config.reject_other_kinds or config.kind not in known or len(known) < 2:
        return np.ones(sum(map(len, candidates)), bool)
    with stages("kinds"):
        told = [
            tell_kinds(tomogram, some, verifier, contrast=contrast)
            for tomogram, some, contrast in zip(tomograms, candidates, contrasts, strict=True)
        ]
    return np.asarray(np.concatenate(told) == config.kind)


def soft_mask(size: int, radius_voxels: float, edge_voxels: float, device: torch.device) -> torch.Tensor:
    """Make a (n, n, n) soft cylinder about z through voxel n // 2, within the sphere inscribed in the box."""
    axis = torch.arange(size, device=device, dtype=torch.float32) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    lateral = torch.hypot(y, x)

    def soft_edge(distance: torch.Tensor, radius: float) -> torch.Tensor:
        return 0.5 * (1 + torch.cos(torch.pi * ((distance - radius) / edge_voxels).clamp(0, 1)))

    # The edge of the sphere ends at the faces of the box.
    sphere = soft_edge(torch.hypot(lateral, z), max(size / 2 - 1 - edge_voxels, 1.0))
    return soft_edge(lateral, radius_voxels) * sphere


def _matched(
    tomograms: TomogramSource | Sequence[TomogramSource], candidates: Candidates | Sequence[Candidates]
) -> tuple[list[Tomogram], list[Candidates]]:
    """Open the tomograms; return them and their candidates, all with the shape of their tomogram."""
    sets = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    single = isinstance(tomograms, (Tomogram, str, os.PathLike)) or getattr(tomograms, "ndim", 0) == 3
    sources: list[Any] = [tomograms] if single else list(tomograms)  # type: ignore[arg-type]
    if len(sources) != len(sets) or not sets:
        raise InputError(
            f"{len(sources)} tomograms and {len(sets)} sets of candidates were given; give one set for each "
            "tomogram, in the same order."
        )
    name, count = Counter(some.tomogram_name for some in sets).most_common(1)[0]
    if count > 1:
        raise InputError(f"Several sets of candidates have the tomogram name {name!r}; rename one of them.")
    volumes = [open_for_candidates(source, some) for source, some in zip(sources, sets, strict=True)]
    for row, (volume, some) in enumerate(zip(volumes, sets, strict=True)):
        if some.tomogram_shape is None:
            scale = volume.voxel_size_angstrom / some.voxel_size_angstrom
            z, y, x = (round(n * scale) for n in volume.shape)
            sets[row] = replace(some, tomogram_shape=(z, y, x))
    return volumes, sets


def _checked_volume(
    name: str, volume: npt.NDArray[Any] | None, edge: int, device: torch.device
) -> torch.Tensor | None:
    if volume is None:
        return None
    array = np.asarray(volume, dtype=np.float32)
    if array.shape != (edge,) * 3 or not np.isfinite(array).all():
        raise InputError(
            f"The {name} has shape {array.shape} or values that are not finite; give {edge} voxels per edge, "
            "like the box."
        )
    return torch.tensor(array, device=device)


def _refine(refinement: Refinement, folder: StrPath | None, stages: Stages) -> State:
    """Run all iterations, from the last one in the checkpoint."""
    count, iterations = len(refinement.stack), refinement.config.iterations
    with stages("noise"), stages.bar("reading boxes", count) as advance:
        refinement.measure_noise(advance)
    store = CheckpointStore(folder, _key(refinement), name="average")
    state = State.load(store, iterations) or refinement.initial_state()
    while state.iteration < iterations:
        averages_first = state.iteration == 0 and refinement.reference is None
        title = f"iteration {state.iteration + 1}/{iterations}"
        with stages(title), stages.bar(title, count * (3 if averages_first else 2)) as advance:
            state = refinement.iterate(state, advance)
        store.save("state", **vars(state))
    return state


def _key(refinement: Refinement) -> str:
    """Return the checkpoint key: everything that changes the state of an iteration."""
    stack, config = refinement.stack, refinement.config
    # The number of iterations decides when outliers are first rejected: in the third, or in the last before.
    options = replace(config, iterations=min(config.iterations, 3), memory_budget_bytes=0, threads=None)
    arrays = hashlib.sha256()
    for volume in (refinement.mask, refinement.reference):
        arrays.update(b"" if volume is None else volume.cpu().numpy().tobytes())
    arrays.update(refinement.of_kind.tobytes())
    for some in stack.candidates:
        arrays.update(some.centre_zyx.tobytes() + some.euler_zyz.tobytes())
    particles = {
        "tomograms": [some.tomogram_name for some in stack.candidates],
        "voxel_size_angstrom": stack.voxel_size_angstrom,
        "box": stack.size,
        "boxes": refinement.checksum,
        "arrays": arrays.hexdigest(),
    }
    return key_of(options.to_dict(), particles, {"fold": refinement.fold, "version": code_version()})


def _result(refinement: Refinement, state: State, symmetry: str) -> Average:
    stack, config = refinement.stack, refinement.config
    halves = torch.from_numpy(state.halves).to(refinement.device)
    fsc = refinement.fsc(halves, shared_angstrom=refinement.shared_angstrom, seed=config.seed)
    rows = [np.flatnonzero(stack.tomogram_index == number) for number in range(len(stack.candidates))]
    return Average(
        map=_filtered(refinement, halves.mean(0), fsc).cpu().numpy(),
        half_maps=(state.halves[0], state.halves[1]),
        mask=refinement.mask.cpu().numpy(),
        voxel_size_angstrom=stack.voxel_size_angstrom,
        fsc=fsc,
        candidates=stack.refined(state.rotation, state.offset, state.score),
        kept=[state.kept[some] for some in rows],
        half=[refinement.half_set[some] for some in rows],
        symmetry=symmetry,
        config=config,
    )


def _filtered(refinement: Refinement, volume: torch.Tensor, fsc: FourierShellCorrelation) -> torch.Tensor:
    """Weight each shell by ``sqrt(2 F / (1 + F))`` up to the resolution, and sharpen by the B-factor."""
    resolution = fsc.resolution_angstrom if np.isfinite(fsc.resolution_angstrom) else fsc.shared_angstrom
    box_angstrom = refinement.size * refinement.stack.voxel_size_angstrom
    signal = np.clip(fsc.correlation, 0, 1)
    cutoff = np.clip(box_angstrom / resolution + 1 - np.arange(len(signal)), 0, 1)
    weight = np.sqrt(2 * signal / (1 + signal)) * cutoff
    shells = refinement.shells
    factor = torch.from_numpy(weight).float().to(refinement.device)[shells.shell]
    if refinement.config.b_factor is not None:
        # Undoes a fall-off by exp(-B f^2 / 4) (Rosenthal & Henderson 2003).
        frequency = shells.frequency.norm(dim=1) / box_angstrom
        factor = factor * torch.exp(refinement.config.b_factor / 4 * frequency**2)
    return shells.volume(shells.transform(volume) * factor)
