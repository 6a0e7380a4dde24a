"""Archives of honest small networks to edit."""

from __future__ import annotations

import functools
import io
import warnings

import honest_models
import torch
from archive_tree import Archive, read_archive_tree

from t3ssfast.models import LeNet, ModelMetadata, UNet
from t3ssfast.models.metadata import METADATA_NAME

__all__ = ["BASES", "base_archive", "lenet_archive"]

# Honest archives to start from: model kind, architecture, form.
BASES: tuple[tuple[str, str, str], ...] = (
    ("classifier", "LeNet", "scripted"),
    ("classifier", "LeNet", "scripted"),
    ("classifier", "LeNet", "traced"),
    ("classifier", "LeNet", "frozen scripted"),
    ("segmenter", "UNet", "scripted"),
    ("segmenter", "UNet", "frozen traced"),
    ("segmenter", "unet up: bilinear size", "scripted"),
    ("segmenter", "unet", "traced"),
    ("classifier", "final constants", "scripted"),
    ("classifier", "input statistics: buffers", "frozen scripted"),
)


@functools.cache
def base_archive(model_kind: str, name: str, form: str) -> Archive:
    """Read the honest archive of "LeNet", "UNet", or a model of `honest_models`; copy it to edit."""
    if name in ("LeNet", "UNet"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = (LeNet((2, 3), (8, 6)) if name == "LeNet" else UNet(2, 2)).eval()
        side = 50 if name == "LeNet" else 64
        example = torch.zeros(2, 1, side, side)
    else:
        module, (example, *_), _ = honest_models.build(name)
    metadata = ModelMetadata(model_kind)
    if model_kind == "classifier":
        classes = {2: ("background", "t3ss"), 3: ("a", "b", "t3ss")}[module(example).shape[1]]
        metadata = ModelMetadata(model_kind, window_px=50, classes=classes)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = honest_models.make_form(module, example, form)
        torch.jit.save(compiled, content, _extra_files={METADATA_NAME: metadata.to_json()})
    return read_archive_tree(content.getvalue())


def lenet_archive() -> Archive:
    """A copy of the scripted LeNet's archive."""
    return base_archive("classifier", "LeNet", "scripted").copy()
