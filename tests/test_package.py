"""Import of the package and its public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import t3ssfast as t3


def test_every_public_name_can_be_loaded() -> None:
    for name in t3.__all__:
        assert getattr(t3, name) is not None
    for name in ("detect", "preselect", "simulate", "evaluate", "export", "average", "extract"):
        assert callable(getattr(t3, name)), name


def test_import_does_not_load_torch() -> None:
    code = (
        "import sys, t3ssfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'detect', 'read'} <= set(dir(t3ssfast))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no_such_name"):
        t3.no_such_name  # noqa: B018
