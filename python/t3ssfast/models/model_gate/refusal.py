"""Why a model file is refused, before it has become a sentence with the file's name."""

from __future__ import annotations

__all__ = ["Refusal", "quoted"]

LONGEST_QUOTE = 80


class Refusal(Exception):
    """A rule that a model file breaks, as a clause that continues "FILE is refused: "."""


def quoted(text: object) -> str:
    """A piece of the file as it appears in a message: on one line, printable, and not long."""
    shown = ascii(text)
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 3] + "..."
