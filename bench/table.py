"""Turn the JSON of pytest-benchmark into a Markdown table of medians and ratios.

Benchmarks of one group do the same work. A name that contains "t3ssfast" is ours, every other one is a peer.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path


def table(results: dict) -> str:
    """Return one row per benchmark, with the ratio of a peer's median to our best in the same run."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for benchmark in results["benchmarks"]:
        groups[benchmark["group"] or benchmark["name"]].append(benchmark)
    rows = ["| work | who | median (ms) | peer / ours |", "|---|---|---:|---:|"]
    for group, members in groups.items():
        ours = min((b["stats"]["median"] for b in members if "t3ssfast" in b["name"]), default=None)
        for benchmark in sorted(members, key=lambda b: b["stats"]["median"]):
            median = benchmark["stats"]["median"]
            ratio = "" if ours is None or "t3ssfast" in benchmark["name"] else f"{median / ours:.1f}"
            who = benchmark["name"].removeprefix("bench_")
            rows.append(f"| {group} | {who} | {median * 1e3:.3g} | {ratio} |")
    return "\n".join(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python bench/table.py BENCHMARK.json")
    print(table(json.loads(Path(sys.argv[1]).read_text())))
