"""Links of all pages lead somewhere, and every public name and every page is in the documentation."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import t3ssfast as t3

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench" / "README.md"]
    if not {"generated", "_build"} & set(path.relative_to(ROOT).parts)
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
# Pages that Sphinx makes or copies, and where they come from.
GENERATED = {
    "generated/cli": "python/t3ssfast/cli/__init__.py",
    "generated/project/contributing": "CONTRIBUTING.md",
    "generated/project/security": "SECURITY.md",
    "generated/project/changelog": "CHANGELOG.md",
    "generated/project/code_of_conduct": "CODE_OF_CONDUCT.md",
    "generated/project/benchmarks": "bench/README.md",
    "generated/examples/index": "examples/README.rst",
}


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        generated = other.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")
        if generated in GENERATED:
            assert (ROOT / GENERATED[generated]).exists(), target
            continue
        assert other.exists(), target
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other), target


def test_every_page_is_in_one_list_of_contents() -> None:
    listed: list[str] = []
    for path in PAGES:
        if path.is_relative_to(DOCS):
            for block in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
                names = [line for line in block.splitlines() if line and not line.startswith(":")]
                listed += [
                    (path.parent / name).resolve().relative_to(DOCS.resolve()).as_posix() for name in names
                ]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES if path.is_relative_to(DOCS)}
    assert sorted(listed) == sorted(set(listed))
    assert pages - {"index", "README"} == set(listed) - set(GENERATED)


def test_commands_of_the_tutorials_fit_the_width_of_their_page() -> None:
    for path in (DOCS / "tutorials").glob("*.md"):
        for block in re.findall(r"```\{run\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                assert len(line) <= 90, f"{path.name}: {line}"


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    assert set(t3.__all__) - {"errors", "T3Error"} <= names
