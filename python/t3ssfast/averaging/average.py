"""Subtomogram averaging: refined poses, two half maps that never mix, and how far they agree.

Each particle is compared with the average of its own half in Fourier space, over what its tilt series has
measured, weighted by what the halves agree on. Turns about the axis are searched in full, tilts within a cone
about the membrane's normal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.extract import box_voxels
from t3ssfast.averaging.fourier import Shells
from t3ssfast.averaging.mask import soft_mask
from t3ssfast.averaging.refine import Refinement
from t3ssfast.averaging.resolution import ShellCorrelation, compare_halves
from t3ssfast.averaging.stack import ParticleStack
from t3ssfast.averaging.state import State, last_state, save_state
from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import atomic_path, results_folder, write
from t3ssfast.io.particles import export
from t3ssfast.io.volumes.opening import open_tomogram
from t3ssfast.models import check_device
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Tomogram, TomogramSource

__all__ = ["Average", "AverageConfig", "average"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MAX_FOLD = 60


@dataclass(frozen=True)
class Average:
    """What became of the particles.

    Parameters
    ----------
    map
        (box, box, box) float32, protein bright, the structure's axis along +z, its centre at voxel box // 2:
        the mean of the half maps, each shell weighted by what is signal in it, and sharpened where asked.
    half_maps
        Two (box, box, box) float32, neither filtered nor masked.
    mask
        (box, box, box) float32.
    voxel_size_angstrom
        Of the maps.
    fsc
        Agreement of the half maps under the mask.
    candidates
        One entry a tomogram: every particle, weeded or not, with its refined pose; the score is its
        correlation with the average of its half.
    kept
        One bool array a tomogram: which particles are in the maps.
    half
        One array of 0 and 1 a tomogram: the half of each particle.
    symmetry
        "C1", "C6" ...
    config
        The options.
    """

    map: Float32
    half_maps: tuple[Float32, Float32]
    mask: Float32
    voxel_size_angstrom: float
    fsc: ShellCorrelation
    candidates: list[Candidates]
    kept: list[npt.NDArray[np.bool_]]
    half: list[npt.NDArray[np.int64]]
    symmetry: str
    config: AverageConfig

    @property
    def resolution_angstrom(self) -> float:
        """Where the half maps' correlation falls below 0.143; NaN where nothing can be claimed."""
        return self.fsc.resolution_angstrom

    @property
    def curated(self) -> list[Candidates]:
        """The particles that are in the maps, one entry a tomogram."""
        return [some[kept] for some, kept in zip(self.candidates, self.kept, strict=True)]

    def summary(self) -> dict[str, Any]:
        """Counts and resolutions as plain values; a resolution is None where nothing can be claimed."""

        def claimed(value: float) -> float | None:
            return round(value, 2) if np.isfinite(value) else None

        return {
            "particles": sum(map(len, self.candidates)),
            "kept": int(sum(kept.sum() for kept in self.kept)),
            "symmetry": self.symmetry,
            "box": self.map.shape[0],
            "voxel_size_angstrom": self.voxel_size_angstrom,
            "resolution_angstrom": claimed(self.fsc.resolution_angstrom),
            "resolution_half_angstrom": claimed(self.fsc.half_angstrom),
            "shared_angstrom": round(self.fsc.shared_angstrom, 2),
        }

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write maps, curve, candidates and summary into a folder, each file atomically.

        average.mrc, half_map_1.mrc, half_map_2.mrc, mask.mrc, fsc.csv, candidates.star (those in the maps),
        particles.csv (all of them, with score, half and whether they were kept), and, last, average.json.

        Raises
        ------
        OutputError
            If something cannot be written.
        """
        import pandas as pd

        out = results_folder(folder, "average.json")
        volumes = {
            "average": self.map,
            "half_map_1": self.half_maps[0],
            "half_map_2": self.half_maps[1],
            "mask": self.mask,
        }
        for name, volume in volumes.items():
            write(out / f"{name}.mrc", volume, self.voxel_size_angstrom)
        curve = pd.DataFrame(
            {
                "frequency_per_angstrom": self.fsc.frequency_per_angstrom,
                "correlation": self.fsc.correlation,
                "masked": self.fsc.masked,
                "noise": self.fsc.noise,
            }
        )
        with atomic_path(out / "fsc.csv") as temporary:
            curve.to_csv(temporary, index=False)
        frames = []
        for some, kept, half in zip(self.candidates, self.kept, self.half, strict=True):
            frame = some.to_dataframe()
            frame["tomogram"] = [some.tomogram_name] * len(some)
            frame["voxel_size_angstrom"] = some.voxel_size_angstrom
            frame["half"], frame["kept"] = half + 1, kept.astype(int)
            frames.append(frame)
        with atomic_path(out / "particles.csv") as temporary:
            pd.concat(frames, ignore_index=True).to_csv(temporary, index=False)
        export(self.curated, out / "candidates.star", "relion5")
        with atomic_path(out / "average.json") as temporary:
            text = json.dumps(self.summary() | {"config": self.config.to_dict()}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
        names = [*(f"{name}.mrc" for name in volumes), "fsc.csv", "particles.csv", "candidates.star"]
        return [out / name for name in [*names, "average.json"]]


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
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Average:
    """Align and average the particles at candidates.

    Parameters
    ----------
    tomograms
        One or several: paths, `Tomogram` or arrays. All are brought to the first one's voxel size.
    candidates
        One entry for each tomogram, in the same order.
    box, box_nm
        Edge of the boxes in voxels, even, or in nm.
    symmetry
        "C1" to "C60", about the particle's axis.
    mask
        (box, box, box), 0 to 1; otherwise a soft cylinder after `AverageConfig.mask_radius_nm`.
    reference
        (box, box, box) map to begin with, protein bright, axis along +z; only what is coarser than
        `AverageConfig.initial_resolution_angstrom` is used. Otherwise each half begins with its own average.
    config
        Every other option.
    device
        "auto", "cpu", "cuda", "cuda:1".
    folder
        Where the state is kept after each iteration (in `state/`), and found again by a later run with the
        same particles and options; results are bit for bit those of a run that was never interrupted.
    progress
        Show bars on a terminal.

    Returns
    -------
    Average

    Raises
    ------
    ConfigError, InputError
        If an option, the tomograms or the candidates cannot be used.
    """
    config = AverageConfig() if config is None else config
    some = [candidates] if isinstance(candidates, Candidates) else list(candidates)
    volumes = _volumes(tomograms, some)
    some = [_placed(one, volume) for one, volume in zip(some, volumes, strict=True)]
    fold = _fold(symmetry)
    edge = box_voxels(box, box_nm, volumes[0].voxel_size_angstrom)
    if edge % 2 or edge < 16:
        raise ConfigError(f"The box is {edge} voxels; averaging needs an even number, at least 16.")
    where = check_device(device)
    with _one_torch_thread() as threads, torch.inference_mode(), Stages(progress) as stages:
        stack = ParticleStack(volumes, some, edge, config, where)
        nm = stack.voxel_size_angstrom / 10
        if mask is None:
            soft = soft_mask(edge, config.mask_radius_nm / nm, config.mask_edge_nm / nm, where)
        else:
            soft = _given(mask, edge, "mask", where).clamp(0, 1)
        start = None if reference is None else _given(reference, edge, "reference", where)
        work = Refinement(stack, soft, fold, config, start, config.threads or threads)
        state = _iterate(work, symmetry, None if folder is None else Path(folder) / "state", stages)
        return _finished(work, state, symmetry)


@contextmanager
def _one_torch_thread() -> Iterator[int]:
    """PyTorch on one thread, so that no sum depends on how many there are; gives how many there were.

    Particles are worked on side by side instead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _volumes(
    tomograms: TomogramSource | Sequence[TomogramSource], candidates: list[Candidates]
) -> list[Tomogram]:
    single = isinstance(tomograms, (Tomogram, str, os.PathLike)) or (
        isinstance(tomograms, np.ndarray) and tomograms.ndim == 3
    )
    given: list[TomogramSource] = [tomograms] if single else list(tomograms)  # type: ignore[list-item, arg-type]
    if len(given) != len(candidates) or not given:
        raise InputError(
            f"{len(given)} tomograms and {len(candidates)} sets of candidates were given; give one set for "
            "each tomogram, in the same order."
        )
    names = [some.tomogram_name for some in candidates]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"Several sets of candidates are of a tomogram called {twice!r}; give each its own tomogram_name."
        )
    return [
        source
        if isinstance(source, Tomogram)
        else open_tomogram(
            source,
            some.voxel_size_angstrom if isinstance(source, np.ndarray) else None,
            some.tomogram_name,
        )
        for source, some in zip(given, candidates, strict=True)
    ]


def _placed(candidates: Candidates, volume: Tomogram) -> Candidates:
    """The candidates with the size of their tomogram, without which no program knows where they are."""
    if candidates.tomogram_shape is not None:
        return candidates
    scale = volume.voxel_size_angstrom / candidates.voxel_size_angstrom
    z, y, x = (round(n * scale) for n in volume.shape)
    return replace(candidates, tomogram_shape=(z, y, x))


def _fold(symmetry: str) -> int:
    match = re.fullmatch(r"[Cc]([1-9][0-9]?)", symmetry)
    if match is None or int(match[1]) > MAX_FOLD:
        raise ConfigError(f"The symmetry is {symmetry!r}; give C1 to C{MAX_FOLD}.")
    return int(match[1])


def _given(volume: npt.NDArray[Any], edge: int, name: str, device: torch.device) -> torch.Tensor:
    array = np.asarray(volume, dtype=np.float32)
    if array.shape != (edge,) * 3 or not np.isfinite(array).all():
        raise InputError(
            f"The {name} has shape {array.shape} or values that are not finite; give {edge} voxels an edge, "
            "as the box has."
        )
    return torch.tensor(array, device=device)


def _iterate(work: Refinement, symmetry: str, folder: Path | None, stages: Stages) -> State:
    """All iterations, from the last one that `folder` holds."""
    stack, config = work.stack, work.config
    with stages("noise"), stages.bar("reading boxes", len(stack)) as advance:
        work.measure_noise(advance)
    key = _key(work, symmetry)
    state = None if folder is None else last_state(folder, key, config.iterations)
    state = work.begin() if state is None else state
    while state.iteration < config.iterations:
        number = state.iteration + 1
        steps = len(stack) * (3 if number == 1 and work.reference is None else 2)
        title = f"iteration {number}/{config.iterations}"
        with stages(title), stages.bar(title, steps) as advance:
            state = work.iterate(state, advance)
        if folder is not None:
            save_state(folder, state, key)
    return state


def _key(work: Refinement, symmetry: str) -> str:
    """What the answer depends on, in short; the number of iterations only adds to it."""
    options = replace(work.config, iterations=min(work.config.iterations, 3), memory_budget_bytes=0)
    digest = hashlib.sha256()
    digest.update(json.dumps(options.to_dict(), sort_keys=True).encode())
    digest.update(f"{symmetry} {work.size} {work.stack.checksum} {work.stack.voxel_size_angstrom}".encode())
    for some in work.stack.candidates:
        digest.update(some.tomogram_name.encode())
        for values in (some.centre_zyx, some.euler_zyz):
            digest.update(values.tobytes())
    for volume in (work.mask, work.reference):
        digest.update(b"" if volume is None else volume.cpu().numpy().tobytes())
    return digest.hexdigest()


def _finished(work: Refinement, state: State, symmetry: str) -> Average:
    stack, config = work.stack, work.config
    halves = torch.from_numpy(state.halves).to(work.device)
    fsc = compare_halves(
        (halves[0], halves[1]),
        work.mask,
        stack.voxel_size_angstrom,
        fold=work.fold,
        shared_angstrom=work.shared_angstrom,
        seed=config.seed,
    )
    rotation, offset = (torch.from_numpy(a).to(work.device) for a in (state.rotation, state.offset))
    rows = [np.flatnonzero(stack.owner == number) for number in range(len(stack.candidates))]
    return Average(
        map=_weighted(work, halves.mean(0), fsc).cpu().numpy(),
        half_maps=(state.halves[0], state.halves[1]),
        mask=work.mask.cpu().numpy(),
        voxel_size_angstrom=stack.voxel_size_angstrom,
        fsc=fsc,
        candidates=stack.refined(rotation, offset, state.score),
        kept=[state.kept[some] for some in rows],
        half=[work.half[some] for some in rows],
        symmetry=symmetry.upper(),
        config=config,
    )


def _weighted(work: Refinement, volume: torch.Tensor, fsc: ShellCorrelation) -> torch.Tensor:
    """The map with each shell times ``sqrt(2 F / (1 + F))`` up to where the halves agree."""
    resolution = fsc.resolution_angstrom
    if not np.isfinite(resolution):
        resolution = fsc.shared_angstrom
    radius = work.size * work.stack.voxel_size_angstrom / resolution
    signal = np.clip(fsc.correlation, 0, 1)
    weight = np.sqrt(2 * signal / (1 + signal)) * np.clip(radius + 1 - np.arange(len(signal)), 0, 1)
    shells: Shells = work.all
    factor = torch.from_numpy(weight).float().to(work.device)[shells.shell]
    if work.config.b_factor is not None:
        frequency = shells.frequency.norm(dim=1) / (work.size * work.stack.voxel_size_angstrom)
        # Undoes a fall-off by exp(-B f^2 / 4) (Rosenthal & Henderson 2003).
        factor = factor * torch.exp(work.config.b_factor / 4 * frequency**2)
    return shells.volume(shells.transform(volume) * factor)
