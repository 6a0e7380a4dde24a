"""The files about the project agree with pyproject.toml, with noxfile.py and with the tree."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import t3ssfast as t3

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
# The names of conda-forge, where they differ from those of PyPI.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
# The sdist has no .github, as only the repository needs it.
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
in_repository = pytest.mark.skipif(not WORKFLOWS, reason="the sdist has no .github")
CONTAINERS = ("Dockerfile", "apptainer.def")


@cache
def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def conda_requirement(line: str) -> tuple[str, SpecifierSet]:
    name, *specifier = line.split()
    return name, SpecifierSet(" ".join(specifier))


def nox_sessions() -> set[str]:
    """Return the names that `nox -s` accepts, without importing nox."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    constants = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
        if target.id == "PYTHONS"
    }
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator == "nox.session":
                    names.add(node.name)
                elif decorator == "nox.session(python=PYTHONS)":
                    names |= {node.name, *(f"{node.name}-{python}" for python in constants["PYTHONS"])}
    return names


def expanded(text: str, matrix: dict[str, list[str]]) -> list[str]:
    """Return a text with the expressions of one matrix replaced, once for each of its values."""
    for key, values in matrix.items():
        expression = "${{ matrix." + key + " }}"
        if expression in text:
            return [done for value in values for done in expanded(text.replace(expression, value), matrix)]
    return [text]


def commands() -> list[tuple[str, str]]:
    """Return every line that a workflow runs, with the name of its file."""
    found = []
    for path in WORKFLOWS:
        for job in read_yaml(f".github/workflows/{path.name}")["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            for step in job.get("steps", []):
                for line in step.get("run", "").splitlines():
                    found += [(path.name, done) for done in expanded(line, matrix)]
    return found


def requires_python() -> str:
    specifier = PROJECT["project"]["requires-python"]
    assert specifier.startswith(">=")
    return specifier.removeprefix(">=")


def test_versions_agree() -> None:
    assert t3.__version__ == VERSION
    assert str(read_yaml("CITATION.cff")["version"]) == VERSION
    assert read_yaml("conda-recipe/recipe.yaml")["context"]["version"] == VERSION
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION


def test_licences_agree() -> None:
    licence = PROJECT["project"]["license"]
    assert read_yaml("CITATION.cff")["license"] == licence
    assert read_yaml("conda-recipe/recipe.yaml")["about"]["license"] == licence
    assert f"org.opencontainers.image.licenses {licence}" in (ROOT / "apptainer.def").read_text()


def test_conda_recipe_has_the_dependencies_of_the_project() -> None:
    recipe = read_yaml("conda-recipe/recipe.yaml")["requirements"]
    wanted = {"python": SpecifierSet(f">={requires_python()}")}
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        wanted[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    assert dict(map(conda_requirement, recipe["run"])) == wanted

    host = dict(conda_requirement(line) for line in recipe["host"] if isinstance(line, str))
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert host[requirement.name] == requirement.specifier
    cmake = PROJECT["tool"]["scikit-build"]["cmake"]["version"]
    assert f"cmake {cmake}" in recipe["build"]


def test_oldest_python_is_the_same_everywhere() -> None:
    oldest = requires_python()
    minors = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert minors[0] == oldest
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert PROJECT["tool"]["cibuildwheel"]["build"][0] == f"cp{oldest.replace('.', '')}-*"
    assert f'match(python, "<{oldest}")' in read_yaml("conda-recipe/recipe.yaml")["build"]["skip"]
    for name in ("README.md", "docs/getting-started.md"):
        assert f"Python {oldest} to {minors[-1]}" in (ROOT / name).read_text(encoding="utf-8"), name
    assert f"tests-{oldest}" in nox_sessions()


def test_every_pinned_version_is_allowed() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            pins[canonicalize_name(requirement.name)] = pin.version
    project = PROJECT["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        name = canonicalize_name(requirement.name)
        if name != "t3ssfast":
            assert name in pins, f"{name} is not in constraints.txt"
            assert requirement.specifier.contains(pins[name]), requirement


@in_repository
def test_workflows_run_sessions_that_exist() -> None:
    sessions = nox_sessions()
    run = [
        (file, name) for file, line in commands() if line.startswith("nox -s ") for name in line.split()[2:]
    ]
    assert {"lint", "types", "newest", "oldest"} <= {name for _, name in run}
    for file, name in run:
        assert name in sessions, f"{file}: {name}"
    tested = {name.removeprefix("tests-") for _, name in run if name.startswith("tests-")}
    built = {f"3.{tag[3:-2]}" for tag in PROJECT["tool"]["cibuildwheel"]["build"]}
    assert tested == built


@in_repository
def test_workflows_name_files_that_exist() -> None:
    for path in WORKFLOWS:
        workflow = read_yaml(f".github/workflows/{path.name}")
        # YAML 1.1, which PyYAML reads, takes the key `on` for True.
        triggers = workflow[True]
        for pattern in (triggers.get("pull_request") or {}).get("paths", []):
            assert list(ROOT.glob(pattern)), f"{path.name}: {pattern}"
        for job in workflow["jobs"].values():
            if job.get("uses", "").startswith("./"):
                assert (ROOT / job["uses"]).is_file(), f"{path.name}: {job['uses']}"
            for step in job.get("steps", []):
                if "cache-dependency-path" in step.get("with", {}):
                    assert (ROOT / step["with"]["cache-dependency-path"]).is_file()
    for file, line in commands():
        if " -c " in line and "pip install" in line:
            words = shlex.split(line)
            assert (ROOT / words[words.index("-c") + 1]).is_file(), f"{file}: {line}"


@in_repository
def test_bug_reports_ask_for_the_installation() -> None:
    form = read_yaml(".github/ISSUE_TEMPLATE/bug_report.yml")
    asked = {
        field["attributes"]["label"] for field in form["body"] if field.get("validations", {}).get("required")
    }
    assert "Output of `t3ssfast doctor --json`" in asked


def test_containers_are_given_every_file_of_the_build() -> None:
    needed = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    needed |= {"CMakeLists.txt", "cmake", "csrc", "python", "pyproject.toml", "constraints.txt"}
    sent = re.findall(r"^ +(\S+) /source/\S+$", (ROOT / "apptainer.def").read_text(), re.MULTILINE)
    assert set(sent) == needed
    assert all((ROOT / name).exists() for name in sent)
    if (ROOT / ".dockerignore").exists():
        kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
        assert set(kept) == needed


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_install_extras_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    (extras,) = re.findall(r"pip install -c constraints.txt '\.\[(.+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    python = re.search(r"python:(3\.\d+)-slim", text)
    assert python is not None
    assert f"(Python {python[1]} on" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_contributing_names_sessions_and_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    used = set(re.findall(r"nox -s ([\w.-]+)", text))
    assert used
    assert used <= nox_sessions()
    for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\b((?:python|csrc|tests|docs|bench|examples|cmake)/[\w./-]*\w)", text):
        assert (ROOT / name).exists(), name
