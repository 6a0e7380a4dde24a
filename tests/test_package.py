"""The package as it is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import t3ssfast as t3


def test_public_names_are_functions_however_modules_were_imported() -> None:
    code = (
        "import t3ssfast as t3\n"
        "from t3ssfast.detect import Detection\n"
        "from t3ssfast.preselect import learn_rule\n"
        "import t3ssfast.simulate, t3ssfast.evaluate, t3ssfast.export\n"
        "for name in t3.__all__: getattr(t3, name)\n"
        "for name in ('detect', 'preselect', 'simulate', 'evaluate', 'export'):\n"
        "    assert callable(getattr(t3, name)), name\n"
        "assert t3.Detection is Detection\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light() -> None:
    code = (
        "import sys, t3ssfast\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'detect', 'read', '__version__'} <= set(dir(t3ssfast))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no_such_name"):
        t3.no_such_name  # noqa: B018
