"""`t3ssfast convert`: model files from TorchScript to safetensors and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options


def convert(
    model: Annotated[
        Path, typer.Argument(help="Model file, .safetensors or TorchScript (.pt).", readable=False)
    ],
    out: Annotated[
        Path, typer.Argument(help="File to write; its suffix, .safetensors or .pt, is the format.")
    ],
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network of weights without metadata: LeNet (classifier), UNet (segmenter) or AxialNet "
            "(verifier).",
            show_default="as the file says",
        ),
    ] = None,
    voxel_size: Annotated[
        float | None,
        typer.Option(
            help="Voxel size of the training data in Angstrom, for weights without metadata.",
            show_default="any",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Convert a model file between TorchScript and safetensors.

    Its metadata is converted with it.

    Only weights of the networks of t3ssfast can be converted. No code of the file is run.

    \b
    Examples:
      t3ssfast convert classifier.pt classifier.safetensors
      t3ssfast convert weights.safetensors segmenter.pt --network UNet --voxel-size 13.6
    """
    from t3ssfast.io import display_path
    from t3ssfast.models import convert_model

    metadata = convert_model(model, out, network=network, voxel_size_angstrom=voxel_size)
    if as_json:
        typer.echo(json.dumps({"file": display_path(out), "metadata": asdict(metadata)}))
    else:
        typer.echo(f"wrote the {metadata.model_kind} to {display_path(out)}")
