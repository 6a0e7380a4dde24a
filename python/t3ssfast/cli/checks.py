"""What `t3ssfast doctor` found out, line by line, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FAILED", "NOTE", "OK", "Check", "show_table"]

OK, NOTE, FAILED = "ok", "note", "FAILED"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: str
    value: str
    note: str = ""


def show_table(title: str, checks: Sequence[Check]) -> None:
    """The lines as a table on standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    for column in ("what", "state", "found", "note"):
        table.add_column(column, overflow="fold")
    styles = {OK: "green", NOTE: "yellow", FAILED: "bold red"}
    for check in checks:
        state = f"[{styles[check.status]}]{check.status}[/]"
        table.add_row(escape(check.name), state, escape(check.value), escape(check.note))
    Console().print(table)
