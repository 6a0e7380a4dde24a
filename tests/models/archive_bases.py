"""Archives of honest small networks to edit.

`python archive_bases.py FOLDER` saves them, in a process of its own because TorchScript names the classes
of an archive after what its process compiled before.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import honest_models
import torch
from archive_tree import Archive, read_archive_tree

from t3ssfast.models import LeNet, ModelMetadata, UNet
from t3ssfast.models.metadata import METADATA_NAME

__all__ = ["BASES", "base_archive", "lenet_archive"]

# Honest archives to start from: model kind, architecture, form.
BASES: tuple[tuple[str, str, str], ...] = (
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


def base_archive(model_kind: str, name: str, form: str) -> Archive:
    """Return a copy of an honest archive, to edit."""
    return _archives()[model_kind, name, form].copy()


def lenet_archive() -> Archive:
    """Return a copy of the scripted LeNet's archive."""
    return base_archive("classifier", "LeNet", "scripted")


@functools.cache
def _archives() -> dict[tuple[str, str, str], Archive]:
    with tempfile.TemporaryDirectory() as folder:
        # TorchScript writes the constants of a class in the order of a set of strings.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHASHSEED": "0",
        }
        subprocess.run([sys.executable, __file__, folder], env=environment, timeout=250, check=True)
        return {
            base: read_archive_tree((Path(folder) / f"{number}.pt").read_bytes())
            for number, base in enumerate(BASES)
        }


def _save(model_kind: str, name: str, form: str, path: Path) -> None:
    """Save a network of our own ("LeNet", "UNet") or of `honest_models`."""
    if name in ("LeNet", "UNet"):
        torch.manual_seed(0)
        module = (LeNet((2, 3), (8, 6)) if name == "LeNet" else UNet(2, 2)).eval()
        side = 50 if name == "LeNet" else 64
        example = torch.zeros(2, 1, side, side)
    else:
        module, (example, *_), _ = honest_models.build(name)
    metadata = ModelMetadata(model_kind, code_version="test")
    if model_kind == "classifier":
        classes = {2: ("background", "t3ss"), 3: ("a", "b", "t3ss")}[module(example).shape[1]]
        metadata = ModelMetadata(model_kind, window_px=50, classes=classes, code_version="test")
    compiled = honest_models.make_form(module, example, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(compiled, path, _extra_files={METADATA_NAME: metadata.to_json()})


if __name__ == "__main__":
    for number, base in enumerate(BASES):
        _save(*base, Path(sys.argv[1]) / f"{number}.pt")
