"""The reference of the command line, written from the commands themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx

from t3ssfast.cli import app as commands

__all__ = ["setup"]

PAGE = Path(__file__).parents[1] / "generated" / "cli.md"
# Characters that a line of the page holds.
WIDTH = 88
INTRODUCTION = """# Command line

Errors are one sentence on standard error. Exit codes: 0 for success, 1 for a failure, 2 for wrong usage, 130
for an interrupted run. `--json` prints the result for scripts. Every command prints the text below with
`--help`.
"""


def sections(command: Any, context: Any, level: int) -> Iterator[str]:
    """Yield the Markdown of a command and of those below it."""
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        child = type(context)(inner, info_name=name, parent=context)
        yield f"{'#' * level} `{child.command_path}`"
        usage, _, rest = inner.get_help(child).partition("\n\n")
        yield f"```text\n{usage.strip()}\n\n{textwrap.dedent(rest).rstrip()}\n```"
        yield from sections(inner, child, level + 1)


def write_page(app: Sphinx) -> None:
    command: Any = typer.main.get_command(commands)
    context = command.make_context("t3ssfast", [], resilient_parsing=True)
    context.terminal_width = context.max_content_width = WIDTH
    text = "\n\n".join([INTRODUCTION, *sections(command, context, 2)]) + "\n"
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        PAGE.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True}
