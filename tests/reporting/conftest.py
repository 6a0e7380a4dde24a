"""What the data of a page are, and the browser that opens it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def data_of() -> Callable[[Path], dict[str, Any]]:
    """Function that returns the data in a page, with a dictionary for each candidate as "candidates"."""

    def read(path: Path) -> dict[str, Any]:
        page = path.read_text(encoding="utf-8")
        (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
        data: dict[str, Any] = json.loads(text)
        data["candidates"] = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
        return data

    return read


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """The driver of a browser without a window."""
    from report_page import chromium

    yield from chromium()


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Iterator[Any]:
    """A page in the browser without what earlier tests stored; its console must stay empty."""
    from report_page import clean_page

    yield from clean_page(driver, tmp_path / "downloads")
