"""The command line interface `t3ssfast`: one module per command, and the handling of errors.

Commands import heavy modules inside their functions, so that `--help` is quick.
Exit codes: 0 success, 1 failure (one sentence on standard error), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from t3ssfast.cli import (
    average,
    bench,
    convert,
    curate_curve,
    demo,
    detect,
    doctor,
    evaluate,
    export,
    extract,
    fdr,
    preselect,
    report,
    simulate,
    status,
    submit,
    suggest,
    train,
)
from t3ssfast.cli.interrupts import INTERRUPTED, exit_on_interrupt, run_interruptible
from t3ssfast.errors import T3Error

__all__ = ["app", "main"]


# PyTorch's warnings from C++ name the line that they came from.
CODE_LINE = re.compile(r" ?\(Triggered internally at [^)]*\)")


class _Group(TyperGroup):
    """Commands that report an error in one sentence instead of a traceback, and react to Ctrl-C at once."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        work = partial(super().main, *arguments, **options)
        with exit_on_interrupt():
            try:
                return run_interruptible(work)
            except SystemExit as error:
                if error.code == INTERRUPTED:
                    # A KeyboardInterrupt raised by the command itself; report it as one from outside.
                    raise KeyboardInterrupt from error
                raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except T3Error as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except MemoryError as error:
            typer.echo("error: Out of memory; close other programs or use a smaller file.", err=True)
            raise typer.Exit(1) from error
        except BrokenPipeError as error:
            # The reader of standard output is gone; give the interpreter another place to flush to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            # Raised by `run_interruptible` in this thread; `exit_on_interrupt` prints the message.
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="t3ssfast",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"t3ssfast {version('t3ssfast')}")
        except PackageNotFoundError:
            typer.echo("t3ssfast, not installed (run from the source tree)")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find type III secretion systems in cryo-electron tomograms."""


app.add_typer(train.app, name="train")
for command in (
    detect.detect,
    submit.submit,
    status.status,
    demo.demo,
    simulate.simulate,
    preselect.preselect,
    evaluate.evaluate,
    export.export,
    fdr.fdr,
    extract.extract,
    average.average,
    convert.convert,
    report.report,
    suggest.suggest,
    curate_curve.curate_curve,
    doctor.doctor,
    bench.bench,
):
    app.command(command.__name__.replace("_", "-"))(command)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning like an error, on one line and without the line of code that it came from."""
    text = CODE_LINE.sub("", " ".join(str(message).split()))
    typer.echo(f"warning: {text}", err=True)


def main() -> None:
    """Run the command line interface."""
    warnings.showwarning = _print_warning
    try:
        with exit_on_interrupt():
            app(prog_name="t3ssfast")
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # Without Python's clean-up, which takes seconds on a busy machine once PyTorch is loaded.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
