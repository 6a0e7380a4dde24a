"""`t3ssfast doctor FILE...`: what a detection would stumble over, before it is started.

Everything is looked at with the functions that a detection uses, and a few slices of the tomogram are
searched in earnest: what the models make of them, which way round the contrast is, how long that took.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3ssfast.cli.checks import FAILED, NOTE, OK, Check

if TYPE_CHECKING:
    import numpy.typing as npt

    from t3ssfast.detection.config import DetectConfig
    from t3ssfast.models import LoadedModel
    from t3ssfast.tomogram import Tomogram

__all__ = ["Options", "preflight"]

# Slices that are searched, and how many of them at a time are looked through for values that cannot be used.
TRIAL_SLICES = 4
SAMPLED_SLICES = 8
# What a detection holds of a whole tomogram, for each of its voxels: masks, and labels while they are pruned.
WHOLE_BYTES_PER_VOXEL = 8
# A tomogram this many times finer or coarser than the models' grid holds other detail than they know.
UNUSUAL_RATIO = 2.0
# Bytes read with the wrong sign jump between neighbours; this much more often than the others is no chance.
WRONG_SIGN_RATIO = 2.0
# Contrast is sure where one sign shows this many times as much membrane as the other.
SURE_CONTRAST = 3.0
# Stages whose time grows with the tomogram.
FIXED_STAGES = frozenset(["read", "load models", "checksum"])


@dataclass(frozen=True)
class Options:
    """What is known about the run that is meant."""

    segmenter: Path | None
    classifier: Path | None
    membrane: Path | None
    tomograms: Path | None
    voxel_size: float | None
    config: DetectConfig
    device: str
    trust_model: bool


def preflight(path: Path, options: Options) -> list[Check]:
    """What can be said about one tomogram, the worst that stops a detection marked FAILED."""
    from t3ssfast.errors import T3Error, VoxelSizeError
    from t3ssfast.io import read, volume_layout

    checks: list[Check] = []
    size = options.voxel_size
    try:
        found = volume_layout(path)
        try:
            source = read(path, voxel_size_angstrom=size)
        except VoxelSizeError as error:
            checks.append(Check("voxel size", FAILED, "unusable", str(error)))
            # Any size will do to look at the rest.
            source = read(path, voxel_size_angstrom=10.0)
        else:
            how = "from the header" if size is None else "as given"
            checks.append(Check("voxel size", OK, f"{source.voxel_size_angstrom:g} A", how))
    except T3Error as error:
        return [Check("file", FAILED, "unreadable", str(error))]
    axes = "" if found.axes == "xyz" else "stored in another order than x, y, z; read as its header says"
    shape = " x ".join(map(str, source.shape))
    checks.append(Check("file", OK, f"{found.format}, {source.data.nbytes / 2**30:.2f} GiB"))
    checks.append(Check("size (z, y, x)", OK, shape))
    checks.append(
        Check("axes", OK if not axes else NOTE, found.axes if found.mode is not None else "zyx", axes)
    )
    checks += _values(source, found.mode, found.imod_stamp)
    checks += _memory(source, options.config)
    if options.tomograms is not None:
        checks.append(_name(source, options.tomograms))
    mask = None
    if options.membrane is not None:
        mask, check = _mask(options.membrane, source)
        checks.append(check)
    models, lines = _models(source, options)
    checks += lines
    if not any(check.status == FAILED for check in checks):
        checks += _trial(source, mask, models, options)
    return checks


def _values(source: Tomogram, mode: int | None, imod_stamp: bool) -> Iterator[Check]:
    """What kind of numbers they are, whether they are read with the right sign, and all finite."""
    import numpy as np

    depth = source.shape[0]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, SAMPLED_SLICES)).astype(int))
    sample = np.stack([np.asarray(source.data[z]) for z in chosen])
    name = sample.dtype.name if mode is None else f"{sample.dtype.name} (mode {mode})"
    status, note = OK, ""
    if mode == 0 and not imod_stamp:
        note = "signed, as MRC2014 says"
        if sample.dtype == np.int8 and sample.shape[-1] > 1:
            jumps = [
                np.abs(np.diff(sample.view(kind).astype(np.int16), axis=-1)).mean()
                for kind in (np.int8, np.uint8)
            ]
            if jumps[0] > WRONG_SIGN_RATIO * jumps[1]:
                status, note = NOTE, "read as signed, but they look unsigned; convert it to mode 2 or 6"
    elif mode == 0:
        note = "signed or not as IMOD's stamp says"
    yield Check("values", status, name, note)
    bad = int(sample.size - np.count_nonzero(np.isfinite(sample)))
    constant = bool(sample.size) and bool((sample == sample.flat[0]).all())
    looked = f"{len(chosen)} of {depth} slices looked at"
    if bad:
        yield Check("NaN or infinity", FAILED, f"{bad}", f"{looked}; replace or crop them")
    elif constant:
        yield Check("grey values", FAILED, f"all {sample.flat[0]:g}", f"{looked}; there is nothing to see")
    else:
        values = f"{float(sample.min()):.4g} to {float(sample.max()):.4g}"
        yield Check("grey values", OK, values, looked)


def _memory(source: Tomogram, config: DetectConfig) -> Iterator[Check]:
    """What a detection will take, against what the machine has to spare."""
    voxels = source.data.size
    needed = config.memory_budget_bytes + WHOLE_BYTES_PER_VOXEL * voxels
    value = f"about {needed / 2**30:.1f} GiB"
    note = f"a budget of {config.memory_budget_bytes / 2**30:.1f} GiB, and masks of the whole tomogram"
    spare = _spare_memory()
    if spare is not None and needed > spare:
        note = f"{spare / 2**30:.1f} GiB are free; lower the budget (--memory-budget) or close other programs"
        yield Check("memory", NOTE, value, note)
    else:
        yield Check("memory", OK, value, note)


def _spare_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return None
    except (OSError, ValueError):
        return None


def _name(source: Tomogram, tomograms: Path) -> Check:
    """Whether a RELION tomograms.star knows the tomogram, under its name and of its size."""
    from t3ssfast.errors import T3Error
    from t3ssfast.io import display_path
    from t3ssfast.io.particles.relion import read_star

    label = "name in tomograms"
    try:
        tables = [block for block in read_star(tomograms).values() if "rlnTomoName" in block]
    except T3Error as error:
        return Check(label, FAILED, "unreadable", str(error))
    names = [str(name) for table in tables for name in table["rlnTomoName"]]
    if source.name not in names:
        some = ", ".join(repr(name) for name in names[:3]) + (" ..." if len(names) > 3 else "")
        note = f"{display_path(tomograms)} has {some or 'no names'}; rename the file, or its entry"
        return Check(label, FAILED, repr(source.name), note)
    return Check(label, OK, repr(source.name), f"one of {len(names)}")


def _mask(path: Path, source: Tomogram) -> tuple[npt.NDArray[Any] | None, Check]:
    """A membrane mask, if it goes with the tomogram."""
    import numpy as np

    from t3ssfast.errors import T3Error
    from t3ssfast.io import read

    try:
        mask = read(path, voxel_size_angstrom=source.voxel_size_angstrom).data
    except T3Error as error:
        return None, Check("membrane mask", FAILED, "unreadable", str(error))
    shape = " x ".join(map(str, mask.shape))
    if mask.shape != source.shape:
        return None, Check("membrane mask", FAILED, shape, "not the tomogram's size; give a mask of its size")
    share, plain = 0, True
    for section in mask:
        share += int(np.count_nonzero(section))
        plain = plain and bool(np.isin(section, (0, 1)).all())
    value = f"{mask.dtype.name}, {100 * share / mask.size:.1f}% membrane"
    if share == 0:
        return None, Check("membrane mask", FAILED, value, "empty; set the membranes to 1")
    note = "" if plain else "values other than 0 and 1; all that is not 0 counts as membrane"
    return mask, Check("membrane mask", OK if plain else NOTE, value, note)


def _models(source: Tomogram, options: Options) -> tuple[dict[str, LoadedModel], list[Check]]:
    """The models, and whether they were made for such a tomogram."""
    from t3ssfast.errors import T3Error
    from t3ssfast.models import load_model

    models: dict[str, LoadedModel] = {}
    checks: list[Check] = []
    wanted = {"classifier": options.classifier}
    if options.membrane is None:
        wanted = {"segmenter": options.segmenter, **wanted}
    for kind, path in wanted.items():
        try:
            model = load_model(path, model_kind=kind, trust_model=options.trust_model)
        except T3Error as error:
            checks.append(Check(kind, FAILED, "unusable", str(error)))
            continue
        models[kind] = model
        own, trained = source.voxel_size_angstrom, model.metadata.voxel_size_angstrom
        if trained is None:
            checks.append(Check(kind, OK, model.path, "works at the tomogram's own voxel size"))
            continue
        ratio = max(own / trained, trained / own)
        note = f"made for {trained:g} A"
        if ratio > 1 + 1e-6:
            note += f"; the tomogram is brought there from {own:g} A"
        if ratio > UNUSUAL_RATIO:
            note += f", {ratio:.1f} times away: expect it to miss more"
        checks.append(Check(kind, NOTE if ratio > UNUSUAL_RATIO else OK, model.path, note))
    return models, checks


def _trial(
    source: Tomogram, mask: npt.NDArray[Any] | None, models: dict[str, LoadedModel], options: Options
) -> Iterator[Check]:
    """A search of a few slices, the ones with most membrane where a mask is given."""
    import numpy as np

    from t3ssfast.detection import detect
    from t3ssfast.errors import T3Error

    depth = source.shape[0]
    middle = depth // 2
    if mask is not None:
        middle = int(np.argmax([np.count_nonzero(section) for section in mask]))
    begin = max(0, min(middle - TRIAL_SLICES // 2, depth - TRIAL_SLICES))
    piece = slice(begin, begin + TRIAL_SLICES)
    thin = replace(source, data=source.data[piece])
    try:
        found = detect(
            thin,
            segmenter=models.get("segmenter"),
            classifier=models["classifier"],
            membrane=None if mask is None else mask[piece],
            device=options.device,
            config=options.config,
            progress=False,
        ).provenance
    except T3Error as error:
        yield Check("trial", FAILED, f"slices {begin} to {begin + thin.shape[0] - 1}", str(error))
        return
    yield _contrast(found["contrast"])
    searched = sum(seconds for stage, seconds in found["seconds"].items() if stage not in FIXED_STAGES)
    expected = searched * depth / thin.shape[0]
    minutes = f"{expected / 60:.1f} min" if expected >= 90 else f"{expected:.0f} s"
    counts = found["counts"]
    note = (
        f"from {thin.shape[0]} slices in {searched:.1f} s with {counts['windows_judged']:,} windows judged; "
        "a guess where membranes are unevenly spread"
    )
    yield Check("time", OK, f"about {minutes}", note)


def _contrast(contrast: dict[str, Any]) -> Check:
    """Which way round protein is, and how sure that is."""
    value = "protein is dark" if contrast["sign"] > 0 else "protein is light"
    how = str(contrast["how"])
    evidence = [contrast[key] for key in ("membrane_as_given", "membrane_inverted") if key in contrast]
    if evidence and max(evidence) <= SURE_CONTRAST * min(evidence):
        return Check("contrast", NOTE, value, f"{how}, but not by much; say it yourself (--contrast)")
    return Check("contrast", OK, value, how)
