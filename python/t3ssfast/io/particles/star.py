"""Star files read in one pass, in bounded time.

Read here and not with the starfile package, which writes them: 20,000 columns on one line of 190 kB keep it
busy for minutes. Here every line is split once; what takes longer than particle lists do is given up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile

__all__ = ["read_star_blocks"]

# No program's particle list has more columns.
MAX_COLUMNS = 1000
MAX_BLOCKS = 10_000
MAX_SECONDS = 60.0
LINES_BETWEEN_LOOKS = 10_000
QUOTED = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")


@dataclass
class _Block:
    labels: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    values: list[str] = field(default_factory=list)


def read_star_blocks(source: ParticleFile, text_columns: list[str]) -> dict[str, pd.DataFrame]:
    """Every block of a star file as a table.

    Parameters
    ----------
    source
        The file.
    text_columns
        Columns that stay text, whatever they look like; others are numbers where all their values are.

    Returns
    -------
    Tables by the blocks' names; a block of pairs is a table of one row. Of two blocks with one name the
    second has a number appended.

    Raises
    ------
    ReadError
        If it is no star file, or takes longer than a minute.
    """
    lines = _Lines(source)
    blocks: dict[str, pd.DataFrame] = {}
    current: _Block | None = None
    name, looping = "", False
    for number, line in lines:
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if not word or word.startswith("#"):
            continue
        if word.startswith("data_"):
            _close(source, blocks, name, current, text_columns)
            name, current, looping = word.removeprefix("data_"), _Block(), False
            if len(blocks) >= MAX_BLOCKS:
                raise ReadError(f"{source.name} has more than {MAX_BLOCKS} blocks; check what it is.")
        elif current is None:
            raise ReadError(
                f"{source.name} is not a star file: line {number} comes before any data_ block; check what "
                "it is."
            )
        elif word == "loop_":
            if current.labels:
                raise ReadError(f"{source.name} has two tables in one block (line {number}); repair it.")
            looping = True
        elif word.startswith("_") and not current.rows:
            _add_label(source, number, current, line, looping, lines)
        elif looping:
            tokens = lines.multi_line(number) if word.startswith(";") else _tokens(line)
            if len(tokens) != len(current.labels):
                raise ReadError(
                    f"{source.name}: line {number} has {len(tokens)} values for {len(current.labels)} "
                    "columns; repair it."
                )
            current.rows.append(tokens)
        else:
            raise ReadError(f"{source.name}: line {number} is no part of a star file; check what it is.")
    _close(source, blocks, name, current, text_columns)
    if current is None:
        raise ReadError(f"{source.name} is not a star file: it has no data_ block; check what it is.")
    return blocks


class _Lines:
    """The lines of a file with their numbers from 1, against the clock."""

    def __init__(self, source: ParticleFile) -> None:
        self.source = source
        self.lines = source.read_text().splitlines()
        self.number = 0
        self.end = time.monotonic() + MAX_SECONDS

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while self.number < len(self.lines):
            self.number += 1
            if self.number % LINES_BETWEEN_LOOKS == 0 and time.monotonic() > self.end:
                raise ReadError(
                    f"{self.source.name} was given up after {MAX_SECONDS:g} s at line {self.number}; split "
                    "it into shorter files."
                )
            yield self.number, self.lines[self.number - 1]

    def multi_line(self, number: int) -> list[str]:
        """The value between a line that starts with ; and the next that does."""
        first = self.lines[number - 1][1:]
        for end in range(self.number, len(self.lines)):
            if self.lines[end].startswith(";"):
                value = "\n".join([first, *self.lines[self.number : end]])
                self.number = end + 1
                return [value.strip("\n")]
        raise ReadError(f"{self.source.name}: the text that begins on line {number} does not end; repair it.")


def _tokens(line: str) -> list[str]:
    """Values of a line, without quotes and up to a comment."""
    if "'" not in line and '"' not in line and "#" not in line:
        return line.split()
    found = []
    for match in QUOTED.finditer(line):
        if match[3] is not None and match[3].startswith("#"):
            break
        found.append(next(part for part in match.groups() if part is not None))
    return found


def _add_label(
    source: ParticleFile, number: int, block: _Block, line: str, looping: bool, lines: _Lines
) -> None:
    tokens = _tokens(line)
    label = tokens[0].removeprefix("_")
    if label in block.labels or len(block.labels) >= MAX_COLUMNS:
        reason = "comes twice" if label in block.labels else f"is one of more than {MAX_COLUMNS} columns"
        raise ReadError(f"{source.name}: {label[:60]!r} on line {number} {reason}; check what it is.")
    block.labels.append(label)
    if looping:
        return
    if len(tokens) == 1 and number < len(lines.lines) and lines.lines[number].startswith(";"):
        lines.number += 1
        tokens += lines.multi_line(lines.number)
    if len(tokens) != 2:
        raise ReadError(f"{source.name}: line {number} is no pair of a name and a value; repair it.")
    block.values.append(tokens[1])


def _close(
    source: ParticleFile,
    blocks: dict[str, pd.DataFrame],
    name: str,
    block: _Block | None,
    text_columns: list[str],
) -> None:
    """Turn a finished block into a table; one without columns is left out."""
    if block is None or not block.labels:
        return
    rows = [block.values] if block.values else block.rows
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(block.labels)
    unique = name
    while unique in blocks:
        unique = f"{name}_{len(blocks)}"
    blocks[unique] = pd.DataFrame(
        {
            label: _column(list(values), label in text_columns)
            for label, values in zip(block.labels, columns, strict=True)
        }
    )


def _column(values: list[str], as_text: bool) -> Any:
    """Whole numbers, numbers or text."""
    if not as_text:
        for kind in (np.int64, np.float64):
            try:
                return np.array(values, dtype=object).astype(kind)
            except (ValueError, TypeError, OverflowError):
                continue
    return pd.Series(values, dtype=object)
