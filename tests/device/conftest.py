"""The kernels' tests run where only PyTorch, NumPy and pytest are installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

try:
    import lazy_loader  # noqa: F401
except ModuleNotFoundError:

    def absent(name: str) -> Any:
        raise AttributeError(f"t3ssfast.{name} needs lazy_loader; import it from its own module")

    # It makes the public names of the package; these tests import from the modules themselves.
    stand_in = ModuleType("lazy_loader")
    stand_in.attach_stub = lambda *_: (absent, list, [])  # type: ignore[attr-defined]
    sys.modules["lazy_loader"] = stand_in
