"""Runner of commands in this process; standard output and error stay apart with every release of click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature

import typer
import typer.testing

# Before release 8.2, click puts both into one text by default.
APART = {"mix_stderr": False} if "mix_stderr" in signature(typer.testing.CliRunner).parameters else {}


@dataclass(frozen=True)
class CommandResult:
    """What a command has printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that was printed, errors last."""
        return self.stdout + self.stderr


class CliRunner:
    """Counterpart of typer's runner."""

    def invoke(
        self, app: typer.Typer, arguments: Sequence[str], env: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Run a command with its arguments."""
        result = typer.testing.CliRunner(**APART).invoke(app, arguments, env=env)
        return CommandResult(result.exit_code, result.stdout, result.stderr)
