"""The files of a result, to compare results."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["results_in"]

RESULTS = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")
# Entries of the provenance that differ between two runs.
RUN_ENTRIES = ("seconds", "resumed")


def results_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of the result files, of the provenance without the entries of the run."""
    found = {name: (folder / name).read_bytes() for name in RESULTS}
    provenance = json.loads((folder / "provenance.json").read_text())
    for name in RUN_ENTRIES:
        del provenance[name]
    # A share of the machine, which follows the workers that there are at the time.
    del provenance["software"]["native"]["threads"]
    return found | {"provenance.json": json.dumps(provenance).encode()}
