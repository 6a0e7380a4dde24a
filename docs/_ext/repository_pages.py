"""Pages from outside of docs/, and links of all pages that work in the repository and on the site.

Relative links in Markdown are resolved in the repository. One to a page of the site leads to that page, one
to another file becomes its name, and one to nothing is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

__all__ = ["setup"]

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
# Files of the repository, and their pages on the site.
COPIES = {
    "CONTRIBUTING.md": "generated/project/contributing.md",
    "SECURITY.md": "generated/project/security.md",
    "CHANGELOG.md": "generated/project/changelog.md",
    "CODE_OF_CONDUCT.md": "generated/project/code_of_conduct.md",
    "bench/README.md": "generated/project/benchmarks.md",
}
PAGES = {**COPIES, "docs/README.md": "index.md", "docs/README.md#for-developers": "developer/index.md"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~|:::).*?^\1", re.MULTILINE | re.DOTALL)


def site_path(target: str, source: Path) -> str | None:
    """Return the page or picture in docs/ that a link in a file leads to; None if it is not on the site."""
    name, hash_sign, anchor = target.partition("#")
    path = (source.parent / name).resolve()
    try:
        relative = path.relative_to(ROOT).as_posix()
    except ValueError:
        relative = ""
    if not relative or not path.exists():
        raise ExtensionError(f"{source}: the link to {target} leads nowhere")
    if f"{relative}#{anchor}" in PAGES:
        return PAGES[f"{relative}#{anchor}"]
    if relative in PAGES:
        return PAGES[relative] + hash_sign + anchor
    if path.parent == ROOT / "examples" and path.suffix == ".py":
        return f"generated/examples/{path.stem}.rst"
    if path.is_relative_to(DOCS) and path.is_file():
        return path.relative_to(DOCS).as_posix() + hash_sign + anchor
    return None


def rewrite(text: str, source: Path, page: Path) -> str:
    """Return the text of a file with its links as they are for a page of the site."""

    def link(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if re.match(r"[a-z]+:|#|/", target):
            return match[0]
        found = site_path(target, source)
        if found is None:
            return label if "`" in label else f"`{label}`"
        name, hash_sign, anchor = found.partition("#")
        return f"{picture}[{label}]({os.path.relpath(DOCS / name, page.parent)}{hash_sign}{anchor})"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def copy_pages(app: Sphinx) -> None:
    for name, page in COPIES.items():
        target = DOCS / page
        text = rewrite((ROOT / name).read_text(encoding="utf-8"), ROOT / name, target)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


def rewrite_page(app: Sphinx, document: str, content: list[str]) -> None:
    source = Path(app.env.doc2path(document))
    if source.suffix == ".md" and "generated" not in source.parts:
        content[0] = rewrite(content[0], source, source)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", rewrite_page)
    return {"parallel_read_safe": True}
