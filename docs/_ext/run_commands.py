"""Directives that run the commands of a page, and show their output and the pictures that they write.

    ```{run}
    t3ssfast detect tomogram.mrc -o found
    ```

The commands of a page run in the order of the page, in one folder. One that fails ends the build;
`-D run_commands=0` only shows them. Each page can also be had as a Jupyter notebook.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

__all__ = ["setup"]

GENERATED = Path(__file__).parents[1] / "generated" / "tutorials"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
TIMEOUT_SECONDS = 1800


def workspace(env: Any) -> Path:
    """Return the folder in which the commands of the present page run."""
    folders: dict[str, str] = env.temp_data.setdefault("run_commands", {})
    if env.docname not in folders:
        folders[env.docname] = tempfile.mkdtemp(prefix="t3ssfast-docs-")
    return Path(folders[env.docname])


class Run(SphinxDirective):
    """Run commands, and show them with what they print."""

    has_content = True
    option_spec: ClassVar = {"quiet": directives.flag}

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        shown: list[nodes.Node] = [nodes.literal_block(text, text, language="bash", classes=["command"])]
        if not self.config.run_commands:
            return shown
        folder = workspace(self.env)
        scripts = str(Path(sys.executable).parent)
        environment = {**os.environ, "COLUMNS": "80", "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}
        try:
            finished = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExtensionError(
                f"{self.get_location()}: not finished after {TIMEOUT_SECONDS} seconds: {text}"
            ) from error
        output = CONTROL.sub("", finished.stdout).replace(f"{folder}/", "").rstrip()
        if finished.returncode:
            raise ExtensionError(
                f"{self.get_location()}: exit code {finished.returncode} of {text}\n{output}"
            )
        if output and "quiet" not in self.options:
            block = nodes.literal_block(output, output, language="text", classes=["command-output"])
            shown.append(block)
        return shown


class RunFigure(Figure):
    """Show a picture that a command wrote."""

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        if not env.config.run_commands:
            return []
        picture = workspace(env) / self.arguments[0]
        name = f"{Path(env.docname).name}-{'-'.join(Path(self.arguments[0]).parts)}"
        GENERATED.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, GENERATED / name)
        self.arguments[0] = f"/generated/tutorials/{name}"
        return list(super().run())


class Notebook(SphinxDirective):
    """Write the page as a Jupyter notebook, and link to it."""

    def run(self) -> list[nodes.Node]:
        source = Path(self.env.doc2path(self.env.docname))
        name = f"{source.stem}.ipynb"
        GENERATED.mkdir(parents=True, exist_ok=True)
        (GENERATED / name).write_text(json.dumps(notebook_of(source.read_text(encoding="utf-8")), indent=1))
        return self.parse_text_to_nodes(
            f"{{download}}`Download this page as a Jupyter notebook </generated/tutorials/{name}>`"
        )


def notebook_of(markdown: str) -> dict[str, Any]:
    """Return the notebook of a page: text, and cells with its commands."""
    cells: list[dict[str, Any]] = []

    def add(cell_type: str, text: str) -> None:
        if text.strip():
            code = {"execution_count": None, "outputs": []} if cell_type == "code" else {}
            identity = f"cell-{len(cells)}"
            cells.append(
                {"cell_type": cell_type, "id": identity, "metadata": {}, "source": text.strip(), **code}
            )

    for part in re.split(r"^(```\{.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL):
        fence = re.match(r"```\{([\w-]+)\} ?(.*)\n((?:.*\n)*)```", part)
        if fence is None:
            add("markdown", part)
        elif fence[1] == "run":
            lines = [line for line in fence[3].splitlines() if not line.startswith(":")]
            add("code", "%%bash\n" + "\n".join(lines))
        elif fence[1] == "run-figure":
            add("code", f'from IPython.display import Image\nImage("{fence[2]}")')
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def remove_workspaces(app: Sphinx, doctree: nodes.document) -> None:
    for folder in app.env.temp_data.pop("run_commands", {}).values():
        shutil.rmtree(folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("run_commands", True, "env", bool)
    app.add_directive("run", Run)
    app.add_directive("run-figure", RunFigure)
    app.add_directive("notebook", Notebook)
    app.connect("doctree-read", remove_workspaces)
    return {"parallel_read_safe": False}
