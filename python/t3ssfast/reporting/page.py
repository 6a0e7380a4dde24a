"""The page of a report: a template, style and scripts, inlined into one file that needs no network.

The content security policy of the page names the hashes of its own style and scripts, so that nothing else
runs. Names and values reach the page as JSON, and the scripts put them into it as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

__all__ = ["render_page"]

STYLES = ("uPlot.min.css", "report.css")
SCRIPTS = ("uPlot.iife.min.js", "report_files.js", "report_plots.js", "report.js")


def render_page(title: str, data: dict[str, Any]) -> str:
    """Return the HTML of a report.

    Parameters
    ----------
    title
        Title of the page, any text.
    data
        Plain values; NaN and infinity raise ValueError.
    """
    import jinja2

    styles = "\n".join(map(_asset, STYLES))
    scripts = [_asset(name) for name in SCRIPTS]
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data: blob:",
            f"style-src {_hash(styles)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("report.html.j2"))
    return template.render(
        title=title, policy=policy, styles=styles, scripts=scripts, data=_inline_json(data)
    )


def _asset(name: str) -> str:
    file = resources.files("t3ssfast.reporting") / "assets" / name
    return file.read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of an inline style or script."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _inline_json(data: dict[str, Any]) -> str:
    """Return JSON that no HTML parser takes for the end of a script or for a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
