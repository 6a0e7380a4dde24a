"""Storage of a preselection in a classifier's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from t3ssfast.errors import ModelError

__all__ = ["StoredPreselection", "tuple_of"]

Stored = TypeVar("Stored", bound="StoredPreselection")
# Names of entries in files that earlier versions wrote.
EARLIER_NAMES = {"figures": "metrics"}


def tuple_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that converts every item of a list."""
    return lambda values: tuple(convert(value) for value in values)


@dataclass(frozen=True)
class StoredPreselection:
    """Base of the preselections: conversion to and from plain values for JSON."""

    # Stored as the entry "kind"; None stores no such entry.
    KIND: ClassVar[str | None] = None
    # The entries that must be present, and how they are converted.
    REQUIRED: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for JSON."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values if self.KIND is None else {"kind": self.KIND, **values}

    @classmethod
    def from_dict(cls: type[Stored], entries: Mapping[str, Any]) -> Stored:
        """Read what `to_dict` returns, also of earlier versions.

        Raises
        ------
        ModelError
            An entry is missing, unknown or of the wrong type.
        """
        values = {EARLIER_NAMES.get(name, name): value for name, value in entries.items() if name != "kind"}
        try:
            values |= {name: convert(values[name]) for name, convert in cls.REQUIRED.items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The {cls.__name__} in the model's metadata cannot be read ({error}); learn it again with "
                "preselect()."
            ) from error
