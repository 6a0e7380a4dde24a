"""Missing packages and a missing GPU driver are reported by `doctor` and the API."""

from __future__ import annotations

import json

import pytest

from processes import python

PACKAGES = [
    "zarr",
    "torch",
    "mrcfile",
    "pandas",
    "starfile",
    "dynamotable",
    "imodmodel",
    "matplotlib",
    "cc3d",
]


@pytest.mark.parametrize(
    "module",
    [*PACKAGES[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES[3:])],
)
def test_doctor_reports_a_missing_package(module):
    script = f"""
        import importlib.abc, json, sys

        class Absent(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == {module!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        from t3ssfast.cli import app
        try:
            app(["doctor", "--json"])
        except SystemExit:
            pass
        """
    done = python(script, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    names = {"cc3d": "connected-components-3d"}
    check = next(c for c in report["checks"] if c["name"] == names.get(module, module))
    assert check["status"] == ("note" if module == "zarr" else "FAILED")
    assert check["note"]
    assert report["ok"] == (module == "zarr"), "only zarr is optional"


def test_package_works_without_a_gpu_driver():
    script = """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import pkgutil, importlib, t3ssfast
        for module in pkgutil.walk_packages(t3ssfast.__path__, "t3ssfast."):
            # Qt and napari are not installed here.
            if ".napari_plugin.widgets" not in module.name:
                importlib.import_module(module.name)
        from t3ssfast import build_info
        assert build_info()["cuda_devices"] == 0
        assert build_info()["cuda_problem"]
        try:
            t3ssfast.detect("none.mrc", device="cuda")
        except t3ssfast.errors.DeviceError as error:
            assert str(error).isprintable()
        else:
            raise SystemExit(3)
        """
    done = python(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
