"""The error for a file that needs a package which is not installed."""

from __future__ import annotations

from t3ssfast.errors import ReadError

__all__ = ["missing_package"]


def missing_package(name: str, package: str, extra: str) -> ReadError:
    """Return the error for a file `name`, a package, and the extra of t3ssfast that installs it."""
    return ReadError(f"{name}: {package} is not installed; run `pip install 't3ssfast[{extra}]'`.")
