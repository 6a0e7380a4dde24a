"""`t3ssfast bench`: the kernels and a detection, timed on this machine against PyTorch alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def bench(
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1".')] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of both; as many as PyTorch takes by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time the kernels and a small detection on this machine, against PyTorch alone; about a minute.

    Both must give the same answers before they are timed. Ratios of one run say more than seconds: a busy
    machine slows both down.

    \b
    Example:
      t3ssfast bench --threads 1
    """
    from t3ssfast.cli.benchmarks import run_benchmarks
    from t3ssfast.kernels._native import build_info
    from t3ssfast.models import check_device

    where = check_device(device)
    timings = []
    for timing in run_benchmarks(where, threads):
        timings.append(timing)
        if not as_json:
            typer.echo(f"{timing.work}: the same answers, {timing.times_faster:.1f} times as fast", err=True)
    info = build_info()
    about = {
        "device": str(where),
        "threads": threads or info["threads"],
        "simd": info["simd"],
        "torch": info["torch"],
        "openvino": info["openvino"],
    }
    if as_json:
        typer.echo(json.dumps({**about, "timings": [t.to_dict() for t in timings]}, allow_nan=False))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(title=", ".join(f"{name} {value}" for name, value in about.items()))
    for column in ("work", "t3ssfast (ms)", "PyTorch (ms)", "times faster", "PyTorch's way"):
        numbers = column.endswith((")", "faster"))
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for t in timings:
        table.add_row(
            t.work, f"{t.seconds * 1e3:.1f}", f"{t.torch_seconds * 1e3:.1f}", f"{t.times_faster:.1f}", t.how
        )
    Console().print(table)
