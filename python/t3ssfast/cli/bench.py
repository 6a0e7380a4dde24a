"""`t3ssfast bench`: times of the kernels and of a detection on this machine, compared with PyTorch alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def bench(
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads of both sides; PyTorch's default if omitted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the timings as JSON.")] = False,
) -> None:
    """Time the kernels and a detection against PyTorch alone.

    The detection is a small one; all takes about a minute.

    Both sides must give the same results before they are timed. Compare the ratios rather than the seconds: a
    busy machine slows both sides down.

    \b
    Example:
      t3ssfast bench --threads 1
    """
    from rich.console import Console
    from rich.table import Table

    from t3ssfast.cli.benchmarks import run_benchmarks
    from t3ssfast.kernels._native import build_info
    from t3ssfast.models import check_device

    torch_device = check_device(device)
    timings = []
    for timing in run_benchmarks(torch_device, threads):
        timings.append(timing)
        if not as_json:
            typer.echo(f"{timing.work}: the same answers, {timing.times_faster:.1f} times as fast", err=True)
    info = build_info()
    machine = {"device": str(torch_device), "threads": threads or info["threads"]}
    machine |= {name: info[name] for name in ("simd", "torch", "openvino")}
    if as_json:
        typer.echo(json.dumps({**machine, "timings": [t.to_dict() for t in timings]}, allow_nan=False))
        return
    table = Table(title=", ".join(f"{name} {value}" for name, value in machine.items()))
    table.add_column("work", overflow="fold")
    for column in ("t3ssfast (ms)", "PyTorch (ms)", "times faster"):
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("PyTorch's way", overflow="fold")
    for t in timings:
        numbers = (t.seconds * 1e3, t.torch_seconds * 1e3, t.times_faster)
        table.add_row(t.work, *(f"{number:.1f}" for number in numbers), t.how)
    Console().print(table)
