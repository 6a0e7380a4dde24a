"""The two networks, and the TorchScript files that carry them together with what they were made for.

A model file is TorchScript with one JSON document inside it (`ModelMetadata`), so that a file alone says on
which voxel size, window, normalisation and contrast it may be used.
"""

from __future__ import annotations

import hashlib
import io as stdio
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata as package_metadata
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, DeviceError, ModelError
from t3ssfast.io import atomic_path
from t3ssfast.normalise import Normalisation

__all__ = [
    "LeNet",
    "LoadedModel",
    "ModelMetadata",
    "UNet",
    "check_device",
    "code_version",
    "load_model",
    "save_model",
]

METADATA_NAME = "t3ssfast.json"
METADATA_FORMAT = 1
KINDS = ("classifier", "segmenter")
# What a classifier without metadata is taken to look at.
DEFAULT_WINDOW_PX = 50
# A side that every U-Net of up to five poolings accepts.
PROBE_SIDE = 64
TARGET_CLASS = "t3ss"


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998), modified: ReLU, max-pooling, and any window.

    conv 5x5, pool 2, conv 5x5, pool 2, two hidden layers, classes. Nothing in it looks beyond a window or
    at the rest of a batch, so that it can be slid over an image exactly.

    Parameters
    ----------
    channels
        Feature maps of the two convolutions.
    hidden
        Widths of the two hidden layers.
    classes
        Number of answers.
    window
        Side of the square window in pixels, at least 16.
    """

    def __init__(
        self,
        channels: tuple[int, int] = (6, 16),
        hidden: tuple[int, int] = (120, 84),
        classes: int = 2,
        window: int = DEFAULT_WINDOW_PX,
    ) -> None:
        super().__init__()
        side = ((window - 4) // 2 - 4) // 2
        if window < 16 or min(*channels, *hidden, classes) < 1:
            raise ConfigError(
                f"A LeNet of channels {channels}, hidden {hidden}, {classes} classes and window {window} "
                "cannot be built; give widths of at least 1 and a window of at least 16."
            )
        self.features = nn.Sequential(
            nn.Conv2d(1, channels[0], 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels[0], channels[1], 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[1] * side * side, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], classes),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """(M, 1, window, window) float32 -> (M, classes) logits."""
        answers: Tensor = self.classifier(self.features(windows))
        return answers


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions of the same size out as in, each with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """A 2D U-Net (Ronneberger et al. 2015) with batch normalisation, padded so that sizes are kept.

    Parameters
    ----------
    depth
        Number of poolings; sides of the input must be multiples of 2**depth.
    base
        Feature maps of the first level, doubled at each further one.
    """

    def __init__(self, depth: int = 4, base: int = 16) -> None:
        super().__init__()
        if depth < 1 or base < 1:
            raise ConfigError(f"A U-Net of depth {depth} and base {base} cannot be built; give at least 1.")
        widths = [base * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double_convolution(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        deepest_first = list(reversed(widths))
        pairs = list(pairwise(deepest_first))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(_double_convolution(a, b) for a, b in pairs)
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) float32, H and W multiples of 2**depth -> (N, 1, H, W) logits."""
        skips: list[Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        for step, (up, merge) in enumerate(zip(self.up, self.merge)):  # noqa: B905  (TorchScript has no strict)
            x = merge(torch.cat([skips[len(skips) - 2 - step], up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def check_device(device: str | torch.device) -> torch.device:
    """The device, if it is there.

    Raises
    ------
    DeviceError
        There is no such device.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f'The device {name!r} cannot be used here; give "cpu" or "auto".') from error
    return chosen


def code_version() -> str:
    """Version of the installed package, "unknown" where it runs from a bare source tree."""
    try:
        return package_metadata.version("t3ssfast")
    except package_metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says about itself.

    Parameters
    ----------
    kind
        "classifier" or "segmenter".
    voxel_size_angstrom
        Of the grid that the model was trained on; None: the tomogram's own.
    window_px, window_nm
        Side of a classifier's window; None for a segmenter.
    normalisation
        How values are prepared.
    contrast
        "dark" (protein dark) or "light".
    classes
        Names of the answers; a classifier's target is "t3ss".
    output
        "logits" or "probabilities".
    recipe
        Options of the training.
    code_version
        Of t3ssfast at training time.
    preselect
        Rule by which a classifier's windows may be ruled out beforehand, as plain values; see preselect.py.
    figures
        What was measured on held-out data.
    """

    kind: str
    voxel_size_angstrom: float | None = None
    window_px: int | None = None
    window_nm: float | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    contrast: str = "dark"
    classes: tuple[str, ...] = ()
    output: str = "logits"
    recipe: dict[str, Any] = field(default_factory=dict)
    code_version: str = field(default_factory=code_version)
    preselect: dict[str, Any] | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, wanted: str) -> None:
            if not ok:
                raise ModelError(
                    f"The model's metadata say {name} = {getattr(self, name)!r}; it must be {wanted}."
                )

        def length_or_none(value: object) -> bool:
            return value is None or (isinstance(value, (int, float)) and 0 < value < float("inf"))

        require(self.kind in KINDS, "kind", '"classifier" or "segmenter"')
        require(self.contrast in ("dark", "light"), "contrast", '"dark" or "light"')
        require(self.output in ("logits", "probabilities"), "output", '"logits" or "probabilities"')
        require(length_or_none(self.voxel_size_angstrom), "voxel_size_angstrom", "a length above 0 or null")
        require(length_or_none(self.window_nm), "window_nm", "a length above 0 or null")
        require(
            self.window_px is None or (isinstance(self.window_px, int) and 2 <= self.window_px <= 4096),
            "window_px",
            "a whole number from 2 to 4096 or null",
        )

    @property
    def target_index(self) -> int:
        """Which of a classifier's answers is the T3SS: the class named so, else the last one."""
        return self.classes.index(TARGET_CLASS) if TARGET_CLASS in self.classes else -1

    def to_json(self) -> str:
        """The JSON document that goes into the file."""
        document: dict[str, Any] = {"format": METADATA_FORMAT}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            document[name] = value.to_dict() if isinstance(value, Normalisation) else value
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """The inverse of `to_json`.

        Raises
        ------
        ModelError
            The document is not one, is of a later format, or holds an impossible value.
        """
        try:
            document = json.loads(text)
            if document.get("format", METADATA_FORMAT) > METADATA_FORMAT:
                raise ModelError(
                    f"The model's metadata have format {document['format']}, newer than the "
                    f"{METADATA_FORMAT} that this version reads; update t3ssfast."
                )
            known = {k: v for k, v in document.items() if k in cls.__dataclass_fields__}
            if "normalisation" in known:
                known["normalisation"] = Normalisation.from_dict(known["normalisation"])
            if "classes" in known:
                known["classes"] = tuple(str(c) for c in known["classes"])
            return cls(**known)
        except ModelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise ModelError(
                f"The model's metadata cannot be read ({error}); save the model again with "
                "t3ssfast.models.save_model."
            ) from error


@dataclass(frozen=True)
class LoadedModel:
    """A checked model, ready to be asked.

    Attributes
    ----------
    module
        In evaluation mode, float32, on one device.
    metadata
        What it is for.
    sha256
        Of the file, or of the weights where there is no file.
    path
        Where it came from; "<module>" where it was handed over.
    """

    module: nn.Module
    metadata: ModelMetadata
    sha256: str
    path: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    def to(self, device: str | torch.device) -> LoadedModel:
        """The same model on a device; itself where it already is there."""
        wanted, here = torch.device(device), self.device
        if here.type == wanted.type and wanted.index in (None, here.index):
            return self
        # TorchScript modules move in place: a copy keeps the caller's model where it was.
        moved = _copy(self.module).to(device)
        return LoadedModel(moved, self.metadata, self.sha256, self.path)

    @cached_property
    def frozen(self) -> nn.Module:
        """TorchScript with weights as constants, batch normalisation folded in, and channels last.

        Measured on a U-Net of base 16 and a slice of 512 x 512: 1.8 times as fast as TorchScript as saved.
        """
        with _quiet_torchscript():
            module = _copy(self.module).to(self.device)
            # Parameters with four axes only; the others have no channels to move.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if not isinstance(module, torch.jit.ScriptModule):
                module = torch.jit.script(module)
            try:
                frozen: nn.Module = torch.jit.freeze(module)
                return frozen
            except RuntimeError:
                # Frozen before, or holding something that cannot be folded: as it is, it answers the same.
                return module

    def probability(self, answers: Tensor) -> Tensor:
        """A model's answers as the probability of what it looks for.

        Parameters
        ----------
        answers
            Of a classifier (M, C), of a segmenter any shape.

        Returns
        -------
        (M,) for a classifier (the class "t3ss", else the last class), the input's shape for a segmenter.
        """
        if self.metadata.kind == "segmenter":
            return answers if self.metadata.output == "probabilities" else torch.sigmoid(answers)
        if answers.shape[1] == 1:
            single = answers[:, 0]
            return single if self.metadata.output == "probabilities" else torch.sigmoid(single)
        if self.metadata.output == "logits":
            answers = torch.softmax(answers, dim=1)
        return answers[:, self.metadata.target_index]


@contextmanager
def _quiet_torchscript() -> Iterator[None]:
    """TorchScript is deprecated but it is what a model file is: users cannot act on that warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*")
        yield


def _copy(module: nn.Module) -> nn.Module:
    """A copy of any module, by way of a TorchScript archive where it is one."""
    if isinstance(module, torch.jit.ScriptModule):
        with _quiet_torchscript():
            buffer = stdio.BytesIO()
            torch.jit.save(module, buffer)
            buffer.seek(0)
            loaded: nn.Module = torch.jit.load(buffer, map_location="cpu")  # type: ignore[no-untyped-call]
            return loaded
    import copy

    return copy.deepcopy(module)


def save_model(module: nn.Module, path: str | os.PathLike[str], metadata: ModelMetadata) -> str:
    """Write a module as a TorchScript file with metadata; atomic.

    Parameters
    ----------
    module
        Scriptable, or TorchScript already. It is saved in evaluation mode, on the CPU, in float32; the module
        handed over is left as it was.
    path
        File to write, by custom ending in ".pt".
    metadata
        What it is for.

    Returns
    -------
    SHA-256 of the file, hexadecimal.

    Raises
    ------
    ModelError
        The module cannot be expressed in TorchScript.
    OutputError
        The file cannot be written.
    """
    clean = _copy(module).to("cpu", torch.float32).eval()
    with _quiet_torchscript():
        try:
            scripted = clean if isinstance(clean, torch.jit.ScriptModule) else torch.jit.script(clean)
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{type(module).__name__} cannot be turned into TorchScript ({first}); "
                "write it with scriptable layers."
            ) from error
        with atomic_path(Path(path)) as temporary:
            torch.jit.save(scripted, str(temporary), _extra_files={METADATA_NAME: metadata.to_json()})
            return hashlib.sha256(temporary.read_bytes()).hexdigest()


def load_model(
    model: str | os.PathLike[str] | nn.Module | LoadedModel | None,
    *,
    kind: str,
    device: str | torch.device = "cpu",
) -> LoadedModel:
    """Load a model, check that it is what it should be, and move it to a device.

    Parameters
    ----------
    model
        A TorchScript file, a module, a model loaded before, or None for the bundled one.
    kind
        "classifier" or "segmenter".
    device
        Where it shall run.

    Returns
    -------
    The model, in evaluation mode and float32.

    Raises
    ------
    ModelError
        The file is missing, damaged, no TorchScript, of another kind, or its answers have the wrong shape or
        are not finite; a bundled file is not the one that was released.

    Warns
    -----
    UserWarning
        The model has no t3ssfast metadata: it is then taken to expect the tomogram's own voxel size, a window
        of 50 pixels, the default normalisation and dark protein; its answers are taken as probabilities where
        they look like them on a probe, else as logits; the last class is the T3SS.
    """
    if kind not in KINDS:
        raise ConfigError(f'The kind of a model is {kind!r}; give "classifier" or "segmenter".')
    if isinstance(model, LoadedModel):
        loaded = model
        _check_kind(loaded.metadata, kind, loaded.path)
        return loaded.to(device)
    if isinstance(model, nn.Module):
        module = _copy(model)
        name, sha256, metadata = "<module>", _sha256_of_weights(module), None
    else:
        content, name = _bundled(kind) if model is None else _content(Path(model))
        sha256 = hashlib.sha256(content).hexdigest()
        module, metadata = _open(content, name)
    module = module.to("cpu", torch.float32).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if metadata is None:
        output = _probe(module, _assumed(kind, "logits"), name)
        metadata = _assumed(kind, "probabilities" if _looks_like_probabilities(output) else "logits")
        if kind == "classifier":
            metadata = replace(metadata, classes=_assumed_classes(output.shape[1]))
        assumed_window = f", a window of {DEFAULT_WINDOW_PX} px" if kind == "classifier" else ""
        warnings.warn(
            f"{name} holds no t3ssfast metadata: assuming the tomogram's own voxel size{assumed_window}, the "
            f"default normalisation, dark protein and {metadata.output} as output.",
            UserWarning,
            stacklevel=2,
        )
    else:
        _check_kind(metadata, kind, name)
        _probe(module, metadata, name)
    return LoadedModel(module, metadata, sha256, name).to(device)


def _assumed(kind: str, output: str) -> ModelMetadata:
    """Metadata of a model that came without."""
    window = DEFAULT_WINDOW_PX if kind == "classifier" else None
    return ModelMetadata(kind, window_px=window, output=output, code_version="unknown")


def _assumed_classes(answers: int) -> tuple[str, ...]:
    """Names of a classifier's answers, the last one being the T3SS; a single answer decides between two."""
    others = ("background",) if answers <= 2 else tuple(f"class_{k}" for k in range(answers - 1))
    return (*others, TARGET_CLASS)


def _check_kind(metadata: ModelMetadata, kind: str, name: str) -> None:
    if metadata.kind != kind:
        raise ModelError(f"{name} is a {metadata.kind}, not a {kind}; give it in the other place.")


def _bundled(kind: str) -> tuple[bytes, str]:
    """Content of a bundled model, checked against the checksum that was released with it."""
    folder = resources.files("t3ssfast") / "weights"
    name = f"{kind}.pt"
    try:
        expected: Mapping[str, str] = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The bundled {kind} is not installed ({error}); install t3ssfast again or give a model file."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected.get(name):
        raise ModelError(
            f"The bundled {kind} is damaged: its SHA-256 is {actual}, not {expected.get(name, 'listed')}; "
            "install t3ssfast again."
        )
    return content, f"bundled:{name}"


def _content(path: Path) -> tuple[bytes, str]:
    """Content of a model file, or why it is none."""
    if not path.is_file():
        raise ModelError(f"There is no model file {path}; give the path of a TorchScript file.")
    how = "save it with torch.jit.script(module).save(path) or t3ssfast.models.save_model"
    if path.suffix == ".pt2":
        raise ModelError(f"{path} is a torch.export archive, not TorchScript; {how}.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        content = path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not a TorchScript file ({error}); {how}.") from error
    if any(n.endswith("/constants.pkl") for n in names):
        return content, str(path)
    if any(
        n.endswith(("models/model.json", "serialized_exported_program.json", "archive_format")) for n in names
    ):
        raise ModelError(f"{path} is a torch.export archive, not TorchScript; {how}.")
    if any(n.endswith("/data.pkl") for n in names):
        raise ModelError(
            f"{path} is a pickle (state dict or module) written by torch.save, not TorchScript; {how}."
        )
    raise ModelError(f"{path} is a zip archive but not a TorchScript file; {how}.")


def _open(content: bytes, name: str) -> tuple[nn.Module, ModelMetadata | None]:
    """Module and metadata out of a TorchScript archive."""
    extra: dict[str, Any] = {METADATA_NAME: ""}
    with _quiet_torchscript():
        try:
            module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                stdio.BytesIO(content), map_location="cpu", _extra_files=extra
            )
        except Exception as error:
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"{name} cannot be loaded as TorchScript ({first}); save the model again."
            ) from error
    text = extra[METADATA_NAME]
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return module, ModelMetadata.from_json(text) if text else None


def _sha256_of_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _probe(module: nn.Module, metadata: ModelMetadata, name: str) -> Tensor:
    """The model's answer to a small deterministic input, checked."""
    classifier = metadata.kind == "classifier"
    side = (metadata.window_px or DEFAULT_WINDOW_PX) if classifier else PROBE_SIDE
    # Two of them, so that a model which squeezes its batch away is seen.
    batch = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    wanted = f"(M, {len(metadata.classes) or 'classes'})" if classifier else "(N, 1, H, W)"
    asked = f"windows (M, 1, {side}, {side})" if classifier else "slices (N, 1, H, W)"
    try:
        with torch.inference_mode(), _quiet_torchscript():
            answer: Tensor = module(batch)
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(
            f"{name} is not a {metadata.kind}: it does not take {asked} ({lines[-1].strip()}); give a model "
            f"that answers them with {wanted}."
        ) from error
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if classifier:
        expected = len(metadata.classes)
        # One answer may stand for two classes.
        allowed = {expected, 1} if expected == 2 else {expected}
        fits = (
            isinstance(answer, Tensor)
            and answer.ndim == 2
            and answer.shape[0] == 2
            and answer.shape[1] >= 1
            and (expected == 0 or answer.shape[1] in allowed)
        )
    else:
        fits = isinstance(answer, Tensor) and tuple(answer.shape) == tuple(batch.shape)
    if not fits or not answer.is_floating_point():
        raise ModelError(
            f"{name} is not a {metadata.kind}: to {asked} it answers {shape}; give a model that answers "
            f"{wanted} floating-point numbers."
        )
    if not torch.isfinite(answer).all():
        raise ModelError(f"{name} answers NaN or infinity to ordinary input; train or save it again.")
    return answer


def _looks_like_probabilities(answer: Tensor) -> bool:
    """Whether a probe's answer lies in [0, 1] and, over several classes, sums to one."""
    inside = bool((answer >= 0).all() and (answer <= 1).all())
    if answer.ndim == 2 and answer.shape[1] > 1:
        return inside and bool(torch.allclose(answer.sum(dim=1), torch.ones(len(answer)), atol=1e-4))
    return inside
