"""What a newcomer does with a wheel, on a machine without a compiler.

    python tests/newcomer.py dist/t3ssfast-*.whl [--tutorial PAGE.html] [TESTS...]

The wheel is installed into a new virtual environment. With a PATH without any compiler, the demo runs, then
the commands of a tutorial as its built HTML page shows them, then tests from a copy of tests/ outside of the
checkout. TESTS are paths in tests/; "." stands for all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from html.parser import HTMLParser
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "cl", "clang-cl", "cmake", "ninja")
# What the tutorials and tests use, besides the commands of the wheel.
TOOLS = ("bash", "sh", "cat", "cp", "cut", "head", "ldd", "ls", "mkdir", "readelf", "uname")


class Commands(HTMLParser):
    """The commands that a page shows, in their order."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Enter a block of commands."""
        classes = (dict(attributes).get("class") or "").split()
        if tag == "div" and "command" in classes:
            self._depth = 1
            self.found.append("")
        elif tag == "div" and self._depth:
            self._depth += 1

    def handle_endtag(self, tag: str) -> None:
        """Leave a block of commands."""
        if tag == "div" and self._depth:
            self._depth -= 1

    def handle_data(self, text: str) -> None:
        """Collect the text of the commands."""
        if self._depth:
            self.found[-1] += text


def make_environment(folder: Path, wheel: Path) -> dict[str, str]:
    """Install a wheel into a new virtual environment; return the variables of processes in it."""
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / "bin"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["OMP_WAIT_POLICY"] = "passive"
    constraints = ROOT / "constraints.txt"
    subprocess.run(
        [scripts / "python", "-m", "pip", "install", "-q", "-c", constraints, f"{wheel.resolve()}[test]"],
        env=variables,
        check=True,
    )
    tools = folder / "tools"
    tools.mkdir()
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None:
            (tools / name).symlink_to(path)
    variables["PATH"] = os.pathsep.join([str(scripts), str(tools)])
    for name in COMPILERS:
        if shutil.which(name, path=variables["PATH"]):
            raise SystemExit(f"{name} is on the PATH of the newcomer")
    return variables


def copy_tests(folder: Path) -> Path:
    """Copy the tests with their configuration to a folder without the sources."""
    copy = folder / "copy"
    shutil.copytree(TESTS, copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    lines = ["[pytest]"]
    for name, value in options["ini_options"].items():
        values = value if isinstance(value, list) else [value]
        lines.append(f"{name} =" + "".join(f"\n    {item}" for item in values))
    (copy / "pytest.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return copy


def main() -> None:
    """Install, run and test a wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("tests", nargs="*", default=["kernels", "test_package.py"])
    parser.add_argument("--tutorial", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = make_environment(folder, arguments.wheel)

        def run(*command: str, where: Path = folder) -> None:
            print("$", *command, flush=True)
            subprocess.run(command, cwd=where, env=environment, check=True)

        run("python", "-c", f"import t3ssfast; assert {str(folder)!r} in t3ssfast.__file__")
        run("t3ssfast", "doctor")
        run("t3ssfast", "demo")
        if arguments.tutorial is not None:
            (folder / "tutorial").mkdir()
            commands = Commands(arguments.tutorial).found
            if not commands:
                raise SystemExit(f"{arguments.tutorial} has no commands")
            for text in commands:
                run("bash", "-euo", "pipefail", "-c", text, where=folder / "tutorial")
        copy = copy_tests(folder)
        run("python", "-m", "pytest", "-q", *(f"tests/{path}" for path in arguments.tests), where=copy)


if __name__ == "__main__":
    sys.exit(main())
