"""Star files as pandas tables: reading within a time limit, and writing.

The package starfile writes the files, but does not read them: a line with 20,000 columns takes it minutes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile

from t3ssfast.errors import ReadError
from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.relion.columns import TEXT

__all__ = ["read_star", "star_name", "write_star"]

# Particle files have fewer columns and blocks, and take less time.
MAX_COLUMNS = 1000
MAX_BLOCKS = 10_000
MAX_SECONDS = 60.0
LINES_BETWEEN_TIME_CHECKS = 10_000
TOKEN = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")


def read_star(path: Path) -> dict[str, pd.DataFrame]:
    """Read every block of a star file; raise ReadError for other files, or after a minute.

    A block of name-value pairs is a table of one row. Columns in `columns.TEXT` are text; others are integers
    or floats if all their values are. A number is appended to a repeated block name.
    """
    file = ParticleFile(path)
    deadline = time.monotonic() + MAX_SECONDS
    lines = enumerate(file.read_text().splitlines(), 1)
    blocks: list[_Block] = []
    for number, line in lines:
        if number % LINES_BETWEEN_TIME_CHECKS == 0 and time.monotonic() > deadline:
            raise ReadError(f"{file}: reading reached line {number} after {MAX_SECONDS:g} s; split the file.")
        word = next(iter(line.split(maxsplit=1)), "#")
        try:
            if word.startswith("data_"):
                blocks.append(_Block(word.removeprefix("data_")))
            elif not word.startswith("#"):
                if not blocks:
                    raise ValueError("text before the first data_ block")
                blocks[-1].add_line(word, line, lines)
            if len(blocks) > MAX_BLOCKS:
                raise ValueError(f"more than {MAX_BLOCKS} blocks")
        except ValueError as error:
            raise ReadError(f"{file}: line {number} of the star file has {error}; repair it.") from error
    if not blocks:
        raise ReadError(f"{file}: not a star file, as it has no data_ block; give a star file.")
    tables: dict[str, pd.DataFrame] = {}
    for block in blocks:
        if not block.is_loop and len(block.values) < len(block.labels):
            raise ReadError(f"{file}: {block.labels[-1][:60]!r} has no value; repair it.")
        if block.labels:
            name = block.name
            while name in tables:
                name = f"{block.name}_{len(tables)}"
            tables[name] = block.to_table()
    return tables


@dataclass
class _Block:
    """A block while it is read; its methods raise ValueError for invalid lines."""

    name: str
    is_loop: bool = False
    labels: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)  # of name-value pairs
    rows: list[list[str]] = field(default_factory=list)  # of a loop

    def add_line(self, word: str, line: str, lines: Iterator[tuple[int, str]]) -> None:
        """Parse a line, given its first word; text values take further lines from `lines`."""
        if word == "loop_":
            if self.labels:
                raise ValueError("a second table in the same block")
            self.is_loop = True
        elif word.startswith("_") and not self.rows:
            self._add_label(_tokens(line))
        elif not self.is_loop and not (word.startswith(";") and len(self.values) < len(self.labels)):
            raise ValueError("neither a name nor a value")
        else:
            tokens = _tokens(line) if not word.startswith(";") else [_text_value(line, lines)]
            if not self.is_loop:
                self.values += tokens
                return
            if len(tokens) != len(self.labels):
                raise ValueError(f"{len(tokens)} values for {len(self.labels)} columns")
            self.rows.append(tokens)

    def _add_label(self, tokens: list[str]) -> None:
        label = tokens[0].removeprefix("_")
        if label in self.labels:
            raise ValueError(f"the repeated column {label[:60]!r}")
        if len(self.labels) >= MAX_COLUMNS:
            raise ValueError(f"more than {MAX_COLUMNS} columns")
        if not self.is_loop:
            if len(tokens) > 2 or len(self.values) < len(self.labels):
                raise ValueError("no pair of a name and a value")
            self.values += tokens[1:]
        self.labels.append(label)

    def to_table(self) -> pd.DataFrame:
        """Convert the block to a table."""
        rows = self.rows if self.is_loop else [self.values]
        columns = zip(*rows, strict=True) if rows else [()] * len(self.labels)
        table: pd.DataFrame = pd.DataFrame(
            {label: _column(list(values), label) for label, values in zip(self.labels, columns, strict=True)}
        )
        return table


def _text_value(line: str, lines: Iterator[tuple[int, str]]) -> str:
    """Return the text between a line that starts with a semicolon and the next one that does."""
    parts = [line[1:]]
    for _, following in lines:
        if following.startswith(";"):
            return "\n".join(parts).strip("\n")
        parts.append(following)
    raise ValueError("a text without an end")


def _tokens(line: str) -> list[str]:
    """Split a line into values, without quotes and comments."""
    if "'" not in line and '"' not in line and "#" not in line:
        return line.split()
    tokens = []
    for match in TOKEN.finditer(line):
        if match[3] is not None and match[3].startswith("#"):
            break
        tokens.append(next(group for group in match.groups() if group is not None))
    return tokens


def _column(values: list[str], label: str) -> Any:
    for dtype in () if label in TEXT else (np.int64, np.float64):
        try:
            return np.array(values, dtype=object).astype(dtype)
        except (ValueError, TypeError, OverflowError):
            continue
    return pd.Series(values, dtype=object)


def write_star(path: Path, blocks: dict[str, pd.DataFrame], comments: str = "") -> None:
    """Write tables as the blocks of a star file after lines of comments, atomically."""
    texts = {str(t) for block in blocks.values() for c in block for t in block[c] if isinstance(t, str)}
    # Some programs do not understand quotes, so they are used only for names that need them.
    needs_quotes = any(re.search(r"[^\w.+:@/\\-]|^(data_|loop_|_)", text) for text in texts)
    text = starfile.to_string(blocks, float_format="%.9g", quote_all_strings=needs_quotes)
    # The first line of starfile holds the time; without it, equal candidates give equal files.
    body = text.split("\n", 1)[1].lstrip("\n")
    with atomic_path(path) as temporary:
        temporary.write_text(f"# Written by t3ssfast\n{comments}\n{body}", encoding="utf-8")


def star_name(name: str) -> str:
    """Return a name for a star file, with quotes and control characters replaced by underscores."""
    return re.sub(r"[\"'\x00-\x1f\x7f-\x9f\u2028\u2029]", "_", name).strip() or "tomogram"
