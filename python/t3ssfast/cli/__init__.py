"""The command `t3ssfast`: one thin command for each verb, and what all of them do with errors.

Nothing heavy is imported here or at the top of a command's module, so that `--help` answers at once.
Exit codes: 0 done, 1 failed (one sentence on standard error), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from t3ssfast.cli import (
    average,
    bench,
    demo,
    detect,
    doctor,
    evaluate,
    export,
    extract,
    preselect,
    simulate,
    train,
)
from t3ssfast.cli.interrupts import INTERRUPTED, ending_when_interrupted, listening
from t3ssfast.errors import T3Error

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Commands whose failures end in one sentence instead of a traceback, and that hear Ctrl-C at once."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        def run() -> Any:
            return super(_Group, self).main(*arguments, **options)

        with ending_when_interrupted():
            try:
                return listening(run)
            except SystemExit as error:
                if error.code == INTERRUPTED:
                    # The work was interrupted by itself: told as one that came from outside.
                    raise KeyboardInterrupt from error
                raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except T3Error as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except MemoryError as error:
            typer.echo(
                "error: There was not enough memory; close other programs or take a smaller file.", err=True
            )
            raise typer.Exit(1) from error
        except BrokenPipeError as error:
            # The reader of our output has gone; leave the interpreter nothing to flush into it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            # Sent on by the thread that listens, which says so.
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="t3ssfast",
    cls=_Group,
    help="Find type III secretion systems in cryo-electron tomograms.",
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
            typer.echo("t3ssfast, not installed (run from its source)")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """Find type III secretion systems in cryo-electron tomograms."""


app.command()(detect.detect)
app.command()(demo.demo)
app.command()(simulate.simulate)
app.add_typer(train.app, name="train")
app.command()(preselect.preselect)
app.command()(evaluate.evaluate)
app.command()(export.export)
app.command()(extract.extract)
app.command()(average.average)
app.command()(doctor.doctor)
app.command()(bench.bench)


def main() -> None:
    """Entry point of the command `t3ssfast`."""
    with ending_when_interrupted():
        app(prog_name="t3ssfast")
