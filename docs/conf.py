"""Sphinx configuration of the documentation; `nox -s docs` builds it without a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import t3ssfast  # noqa: E402

project = "t3ssfast"
author = "The t3ssfast authors"
project_copyright = author
version = release = t3ssfast.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "repository_pages",
    "cli_reference",
    "run_commands",
]
exclude_patterns = ["_build", "README.md", "generated/examples/*.ipynb", "generated/examples/*.py"]
# Single backticks in docstrings are names and values.
default_role = "literal"
suppress_warnings = ["config.cache"]

# The anchors that GitHub gives to headings, too.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/examples",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
}

html_theme = "furo"
html_title = f"t3ssfast {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
templates_path = ["_templates"]


def setup(app: Sphinx) -> None:
    """Show the list of layers of the architecture, a block with a language of its own, as text."""
    app.add_lexer("layers", TextLexer)
