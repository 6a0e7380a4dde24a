"""One line of the report of `t3ssfast doctor`, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FAILED", "NOTE", "OK", "Check", "print_table"]

OK, NOTE, FAILED = "ok", "note", "FAILED"
STYLES = {OK: "green", NOTE: "yellow", FAILED: "bold red"}


@dataclass(frozen=True)
class Check:
    """What was checked, its status (OK, NOTE or FAILED), the value found, and what it means."""

    name: str
    status: str
    value: str
    note: str = ""


def print_table(title: str, checks: Sequence[Check]) -> None:
    """Print checks as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    for column in ("check", "status", "value", "note"):
        table.add_column(column, overflow="fold")
    for check in checks:
        status = f"[{STYLES[check.status]}]{check.status}[/]"
        table.add_row(escape(check.name), status, escape(check.value), escape(check.note))
    Console().print(table)
