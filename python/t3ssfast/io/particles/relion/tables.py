"""Star files as tables of columns, written and read."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import starfile

from t3ssfast.io import atomic_path
from t3ssfast.io.particles.particle_file import ParticleFile
from t3ssfast.io.particles.relion.columns import TEXT
from t3ssfast.io.particles.star import read_star_blocks

__all__ = ["read_star", "star_name", "write_star"]


def read_star(path: Path) -> dict[str, pd.DataFrame]:
    """Every block of a star file as a table, names as text; ReadError for what is no star file."""
    return read_star_blocks(ParticleFile(path), TEXT)


def write_star(path: Path, blocks: dict[str, pd.DataFrame]) -> None:
    """Write tables as the blocks of a star file, atomically."""
    texts = {str(t) for block in blocks.values() for c in block for t in block[c] if isinstance(t, str)}
    # RELION takes quotes, but some of its neighbours do not: only where a name would be misread without.
    odd = any(re.search(r"[^\w.+:@/\\-]|^(data_|loop_|_)", text) for text in texts)
    text = starfile.to_string(blocks, float_format="%.9g", quote_all_strings=odd)
    # The library's first line holds the time; without it, the same candidates give the same bytes.
    body = text.split("\n", 1)[1].lstrip("\n")
    with atomic_path(path) as temporary:
        temporary.write_text("# Written by t3ssfast\n\n" + body, encoding="utf-8")


def star_name(name: str) -> str:
    """A name as it can stand in a star file: quotes and control characters become underscores."""
    return re.sub(r"[\"'\x00-\x1f\x7f-\x9f\u2028\u2029]", "_", name).strip() or "tomogram"
