"""Why a model file is refused, before it has become a sentence with the file's name."""

from __future__ import annotations

__all__ = ["Refusal", "TooLarge", "quoted"]

MAX_QUOTED = 80
# Quoted text must not act on a terminal or in a page: ascii() escapes the first, this table the second.
HTML = str.maketrans({"<": r"\x3c", ">": r"\x3e", "&": r"\x26"})


class Refusal(Exception):
    """A rule that a model file breaks, as a clause that continues "FILE is refused: "."""


class TooLarge(Refusal, MemoryError):
    """The model needs far more memory than a network of its input size."""


def quoted(text: str | bytes) -> str:
    """Quote a piece of a file for a message: one line, printable ASCII without markup, and short."""
    shown = ascii(text[:MAX_QUOTED]).translate(HTML)
    return shown if len(shown) <= MAX_QUOTED else shown[: MAX_QUOTED - 3] + "..."
