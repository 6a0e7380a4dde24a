"""Check a tomogram before a detection, with the functions that a detection uses and a trial run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.cli.checks import FAILED, NOTE, OK, Check
from t3ssfast.detection import detect
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import T3Error, VoxelSizeError
from t3ssfast.io import SignSource, VolumeLayout, display_path, looks_unsigned, read, read_mask, volume_layout
from t3ssfast.io.particles.relion import read_star
from t3ssfast.io.tomogram_names import match_names
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import Tomogram

# Slices of the trial run, and slices whose values are checked.
TRIAL_SLICES = 4
SAMPLED_SLICES = 8
# Bytes per voxel that a detection holds for the whole tomogram: masks, and labels while they are pruned.
WHOLE_BYTES_PER_VOXEL = 8
# Warn if the voxel size differs from the models' by more than this factor.
MAX_VOXEL_SIZE_RATIO = 2.0
# The contrast is reported as clear if one sign gives this many times more membrane than the other.
CLEAR_CONTRAST_RATIO = 3.0
# Stages whose time does not grow with the number of slices.
FIXED_STAGES = frozenset(["read", "load models", "checksum"])
# A placeholder, so that a tomogram without a voxel size gets the other checks.
ANY_VOXEL_SIZE = 10.0


def check_tomogram(
    path: Path,
    membrane: Path | None,
    *,
    segmenter: Path | None,
    classifier: Path | None,
    tomograms: Path | None,
    voxel_size: float | None,
    config: DetectConfig,
    device: str,
    trust_model: bool,
    readings: dict[str, dict[str, Any]],
) -> list[Check]:
    """Check one tomogram and its membrane mask; whatever would stop a detection has the status FAILED.

    `tomograms` is a RELION tomograms.star that should list the tomogram.
    """
    try:
        stored = volume_layout(path)
        try:
            tomogram = read(path, voxel_size_angstrom=voxel_size)
        except VoxelSizeError as error:
            size = Check("voxel size", FAILED, "unusable", str(error))
            tomogram = read(path, voxel_size_angstrom=ANY_VOXEL_SIZE)
        else:
            origin = "from the header" if voxel_size is None else "as given"
            size = Check("voxel size", OK, f"{tomogram.voxel_size_angstrom:g} A", origin)
    except T3Error as error:
        return [Check("file", FAILED, "unreadable", str(error))]
    checks = [size, *_storage(tomogram, stored), *_values(tomogram, stored), _memory(tomogram, config)]
    if tomograms is not None:
        checks.append(_name(tomogram, tomograms))
    mask = None
    files = {"segmenter": segmenter, "classifier": classifier}
    if membrane is not None:
        mask, check = _mask(membrane, tomogram)
        checks.append(check)
        del files["segmenter"]
    models, model_checks = _models(tomogram, files, trust_model, readings)
    checks += model_checks
    if not any(check.status == FAILED for check in checks):
        checks += _trial(tomogram, mask, models, device, config)
    return checks


def _storage(tomogram: Tomogram, stored: VolumeLayout) -> Iterator[Check]:
    """Report the file format, the size and the axis order."""
    yield Check("file", OK, f"{stored.format}, {_file_size(tomogram.data.nbytes)}")
    yield Check("size (z, y, x)", OK, " x ".join(map(str, tomogram.shape)))
    axes = stored.axes if stored.mode is not None else "zyx"
    note = "" if stored.axes == "xyz" else "not stored in the order x, y, z; read in the order of the header"
    yield Check("axes", NOTE if note else OK, axes, note)


def _file_size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _values(tomogram: Tomogram, stored: VolumeLayout) -> Iterator[Check]:
    """Check the data type, the sign of bytes, and that values are finite and not constant."""
    depth = tomogram.shape[0]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, SAMPLED_SLICES)).astype(int))
    sample = np.stack([np.asarray(tomogram.data[z]) for z in chosen])
    name = sample.dtype.name if stored.mode is None else f"{sample.dtype.name} (mode {stored.mode})"
    if stored.mode != 0:
        yield Check("values", OK, name)
    elif stored.sign_from is SignSource.IMOD_STAMP:
        yield Check("values", OK, name, "signed or unsigned according to IMOD's stamp")
    elif sample.dtype == np.uint8:
        yield Check("values", OK, name, f"unsigned according to the {stored.sign_from.value}")
    elif looks_unsigned(sample):
        yield Check("values", NOTE, name, "read as signed, but they look unsigned; convert to mode 2 or 6")
    else:
        yield Check("values", OK, name, "signed, following MRC2014")
    extent = f"{len(chosen)} of {depth} slices checked"
    not_finite = int(sample.size - np.count_nonzero(np.isfinite(sample)))
    if not_finite:
        yield Check("NaN or infinity", FAILED, f"{not_finite}", f"{extent}; replace or crop them")
    elif sample.size and bool((sample == sample.flat[0]).all()):
        yield Check("grey values", FAILED, f"all {sample.flat[0]:g}", f"{extent}; the tomogram is empty")
    else:
        yield Check("grey values", OK, f"{float(sample.min()):.4g} to {float(sample.max()):.4g}", extent)


def _memory(tomogram: Tomogram, config: DetectConfig) -> Check:
    """Compare the memory that a detection needs with the memory that is free."""
    needed = config.memory_budget_bytes + WHOLE_BYTES_PER_VOXEL * tomogram.data.size
    value = f"about {needed / 2**30:.1f} GiB"
    available = _available_memory()
    if available is not None and needed > available:
        note = f"{available / 2**30:.1f} GiB are free; use a smaller --memory-budget or close other programs"
        return Check("memory", NOTE, value, note)
    budget = f"{config.memory_budget_bytes / 2**30:.1f} GiB"
    return Check("memory", OK, value, f"the budget of {budget}, and masks of the whole tomogram")


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return None


def _name(tomogram: Tomogram, tomograms: Path) -> Check:
    """Check that a RELION tomograms.star lists the tomogram."""
    label = "name in tomograms"
    try:
        tables = [block for block in read_star(tomograms).values() if "rlnTomoName" in block]
    except T3Error as error:
        return Check(label, FAILED, "unreadable", str(error))
    names = [str(name) for table in tables for name in table["rlnTomoName"]]
    match = match_names([tomogram.name], names).get(tomogram.name)
    if match is not None:
        called = "" if match == tomogram.name else f", called {match!r} there"
        return Check(label, OK, repr(tomogram.name), f"one of {len(names)}{called}")
    listed = ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "") or "no names"
    note = f"{display_path(tomograms)} has {listed}; rename the file or the entry"
    return Check(label, FAILED, repr(tomogram.name), note)


def _mask(path: Path, tomogram: Tomogram) -> tuple[npt.NDArray[Any] | None, Check]:
    """Read a membrane mask; None if it cannot be used with the tomogram."""
    label = "membrane mask"
    try:
        mask = read_mask(path, tomogram)
    except T3Error as error:
        return None, Check(label, FAILED, "unusable", str(error))
    # Slice by slice, so that a mapped file is not read into memory as a whole.
    membrane_voxels = sum(int(np.count_nonzero(section)) for section in mask)
    value = f"{mask.dtype.name}, {100 * membrane_voxels / mask.size:.1f}% membrane"
    if all(bool(np.isin(section, (0, 1)).all()) for section in mask):
        return mask, Check(label, OK, value)
    return mask, Check(label, NOTE, value, "has values other than 0 and 1; all but 0 count as membrane")


def _models(
    tomogram: Tomogram,
    files: dict[str, Path | None],
    trust_model: bool,
    readings: dict[str, dict[str, Any]],
) -> tuple[dict[str, LoadedModel], list[Check]]:
    """Load the models, and compare their voxel size with the tomogram's."""
    models: dict[str, LoadedModel] = {}
    checks: list[Check] = []
    for kind, path in files.items():
        try:
            model = models[kind] = load_model(
                path, model_kind=kind, trust_model=trust_model, **readings[kind]
            )
        except T3Error as error:
            checks.append(Check(kind, FAILED, "unusable", str(error)))
            continue
        size, model_size = tomogram.voxel_size_angstrom, model.metadata.voxel_size_angstrom
        if model_size is None:
            checks.append(Check(kind, OK, model.path, "works at the tomogram's own voxel size"))
            continue
        ratio = max(size / model_size, model_size / size)
        note = f"trained at {model_size:g} A"
        if ratio > 1 + 1e-6:
            note += f"; the tomogram is resampled from {size:g} A"
        if ratio > MAX_VOXEL_SIZE_RATIO:
            note += f", a factor of {ratio:.1f}: expect more missed T3SS"
        checks.append(Check(kind, NOTE if ratio > MAX_VOXEL_SIZE_RATIO else OK, model.path, note))
    return models, checks


def _trial(
    tomogram: Tomogram,
    mask: npt.NDArray[Any] | None,
    models: dict[str, LoadedModel],
    device: str,
    config: DetectConfig,
) -> Iterator[Check]:
    """Search a few slices: those in the middle, or those with most membrane if there is a mask."""
    depth = tomogram.shape[0]
    middle = depth // 2 if mask is None else int(np.argmax([np.count_nonzero(section) for section in mask]))
    first = max(0, min(middle - TRIAL_SLICES // 2, depth - TRIAL_SLICES))
    slices = slice(first, first + TRIAL_SLICES)
    trial = replace(tomogram, data=tomogram.data[slices])
    count = trial.shape[0]
    try:
        provenance = detect(
            trial,
            segmenter=models.get("segmenter"),
            classifier=models["classifier"],
            membrane=None if mask is None else mask[slices],
            device=device,
            config=config,
            progress=False,
        ).provenance
    except T3Error as error:
        yield Check("trial", FAILED, f"slices {first} to {first + count - 1}", str(error))
        return
    yield _contrast(provenance["contrast"])
    seconds = sum(spent for stage, spent in provenance["seconds"].items() if stage not in FIXED_STAGES)
    expected = seconds * depth / count
    value = f"about {expected / 60:.1f} min" if expected >= 90 else f"about {expected:.0f} s"
    note = (
        f"{count} slices took {seconds:.1f} s with {provenance['counts']['windows_judged']:,} windows "
        "classified; a rough estimate if the slices differ in membrane"
    )
    yield Check("time", OK, value, note)


def _contrast(contrast: dict[str, Any]) -> Check:
    """Report the contrast, and whether the evidence for it is clear."""
    value = "protein is dark" if contrast["sign"] > 0 else "protein is light"
    how = str(contrast["how"])
    evidence = [contrast[key] for key in ("membrane_as_given", "membrane_inverted") if key in contrast]
    if evidence and max(evidence) <= CLEAR_CONTRAST_RATIO * min(evidence):
        return Check("contrast", NOTE, value, f"{how}, but the difference is small; set it with --contrast")
    return Check("contrast", OK, value, how)
