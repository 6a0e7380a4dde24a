"""The way from `detect` to the native kernel is short enough to follow."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import t3ssfast as t3
from t3ssfast.tomogram import Tomogram
from toy import Models, toy_detect, toy_tomogram

DOCUMENT = Path(__file__).parents[2] / "docs" / "dev" / "architecture.md"
# Functions from detect() to the C++ entry, that one included.
LONGEST = 8


def chains_to_the_kernel(models: Models, tomogram: Tomogram) -> set[tuple[str, ...]]:
    """Functions of the package on the stack, outermost first, whenever windows are scored natively."""
    package = str(Path(t3.errors.__file__).parent)
    chains = set()

    def record(frame: FrameType | None, event: str, function: Any) -> None:
        if event == "c_call" and "score_windows" in function.__name__:
            names = [function.__name__]
            while frame is not None:
                if frame.f_code.co_filename.startswith(package):
                    names.append(frame.f_code.co_name)
                frame = frame.f_back
            chains.add(tuple(reversed(names)))

    sys.setprofile(record)
    try:
        toy_detect(tomogram, models)
    finally:
        sys.setprofile(None)
    return chains


def test_documented_chain_from_detect_to_the_kernel(models: Models) -> None:
    tomogram, _, _ = toy_tomogram((6, 90, 100), particles=1)
    chains = {chain for chain in chains_to_the_kernel(models, tomogram) if "classify" in chain}
    section = re.search(r"## From detect\(\) to the kernel\n(.*?)\n## ", DOCUMENT.read_text("utf-8"), re.S)
    assert section is not None
    documented = tuple(re.findall(r"^\d+\. `(\w+)`", section[1], re.M))
    assert chains == {documented}
    assert len(documented) <= LONGEST
