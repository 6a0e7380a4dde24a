"""The house rules that a reader cannot see in one file: who may import whom, and what is public."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "t3ssfast"
CSRC = ROOT / "csrc"

# Downward only: a module may import those of lower levels, and of its own.
LEVELS = [
    {"errors", "types", "pages"},
    {"_native", "ahead", "io", "lease", "memory", "progress", "upload"},
    {"windows", "statistics", "normalise", "pieces", "region"},
    {"models", "plan"},
    {"segment", "preselect", "classify", "pick", "provenance", "verify"},
    {"export", "extract", "evaluate", "calibrate", "figures", "average", "simulate", "train"},
    {"detect"},
    {"benchmark", "recipe"},
    {"cli", "__init__"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The module or subpackage directly under t3ssfast that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """What a file imports of t3ssfast, at its top or inside functions: names directly under the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("t3ssfast.")}
            assert not any(alias.name == "t3ssfast" for alias in node.names), f"{path} imports the package"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            parts = (node.module or "").split(".")
            if parts[0] == "t3ssfast":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_the_package_is_found():
    assert len(FILES) > 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    own = module_of(path)
    assert own in LEVEL, f"{own} has no level; give it one in DESIGN and here"
    for other in imports_of(path) - {own, "_core"}:
        assert other in LEVEL, f"{path} imports {other}, which has no level"
        assert LEVEL[other] <= LEVEL[own], f"{own} imports {other} upwards"


def test_no_two_modules_import_each_other():
    imported: dict[str, set[str]] = {}
    for path in FILES:
        imported.setdefault(module_of(path), set()).update(imports_of(path))
    for name, others in imported.items():
        for other in others - {name}:
            assert name not in imported.get(other, set()), f"{name} and {other} import each other"


def test_one_module_imports_the_extension():
    importers = [path.relative_to(PACKAGE).as_posix() for path in FILES if "_core" in imports_of(path)]
    assert importers == ["_native/extension.py"]


def test_the_extension_is_reached_by_its_door():
    for path in FILES:
        if module_of(path) != "_native":
            inside = r"t3ssfast\._native\.|_native\.extension|_native import .*\bextension\b"
            assert not re.search(inside, path.read_text(encoding="utf-8")), f"{path} reaches into _native"


def test_no_module_is_called_utils():
    assert not [path for path in FILES if "util" in path.stem or "helper" in path.stem]


def test_init_holds_public_names_and_nothing_else():
    path = PACKAGE / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            names = ast.literal_eval(node.value)
    assert names == sorted(names, key=lambda n: (not n[0].isupper(), n)) or names == sorted(names)
    assert not [name for name in names if name.startswith("_") and name != "__version__"]
    import t3ssfast

    assert sorted(n for n in dir(t3ssfast) if not n.startswith("_") and n in names) == sorted(names)


@pytest.mark.parametrize(("half", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_halves_never_include_each_other(half, other):
    for path in sorted((CSRC / half).rglob("*")) if (CSRC / half).is_dir() else []:
        if path.is_file():
            included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.M)
            assert not [name for name in included if name.split("/")[0] == other], path


def test_the_core_includes_nothing_above_it():
    for path in sorted((CSRC / "core").glob("*.h")):
        included = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.M)
        assert not [name for name in included if name.split("/")[0] in ("cpu", "cuda", "bindings")], path


def test_public_modules_say_what_is_public():
    for path in FILES:
        if module_of(path) != "cli" and path.name != "__init__.py" and not path.stem.startswith("_"):
            assert "__all__" in path.read_text(encoding="utf-8"), f"{path} has no __all__"
