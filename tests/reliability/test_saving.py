"""Saved results are complete or absent, also after a kill or on a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
from test_names import candidates_named

import t3ssfast as t3
from processes import search_path
from t3ssfast.errors import OutputError

TABLES = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")


def results(number: int) -> t3.Detection:
    """Return results that differ in every file from those of another number."""
    candidates = candidates_named(f"TS_{number}")
    candidates = replace(
        candidates, score=candidates.score - 0.1 * number, centre_zyx=candidates.centre_zyx + number
    )
    membrane = np.full((20, 300, 400), number, np.uint8)
    return t3.Detection(candidates, membrane, {"number": number})


def test_killed_save_leaves_no_partial_file(tmp_path, soak):
    kills = 200 if soak else 10
    expected: dict[str, set[bytes]] = {name: set() for name in TABLES}
    for number in (0, 1):
        results(number).save(tmp_path / f"{number}")
        for name in TABLES:
            expected[name].add((tmp_path / f"{number}" / name).read_bytes())
    out = tmp_path / "out"
    # A process that has imported everything forks the processes to kill.
    script = f"""
        import itertools, os, sys, time, test_saving as t
        both = [t.results(0), t.results(1)]
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                for number in itertools.cycle((0, 1)):
                    both[number].save({str(out)!r})
                    time.sleep(0.05)
            print(child, flush=True)
            os.waitpid(child, 0)
            print("ended", flush=True)
        """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": search_path()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    rng = np.random.default_rng(0)
    complete_after = []
    for _ in range(kills):
        parent.stdin.write("fork\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        time.sleep(float(rng.uniform(0.0, 0.3)))
        os.kill(child, signal.SIGKILL)
        assert parent.stdout.readline() == "ended\n"
        for name in TABLES:
            if (out / name).exists():
                assert (out / name).read_bytes() in expected[name], f"{name} is incomplete"
        complete_after.append((out / "provenance.json").exists())
        if complete_after[-1]:
            number = json.loads((out / "provenance.json").read_text())["number"]
            for name in TABLES:
                assert (out / name).read_bytes() == (tmp_path / f"{number}" / name).read_bytes()
    parent.stdin.close()
    assert parent.wait(timeout=100) == 0
    parent.stdout.close()
    if soak:
        assert set(complete_after) == {True, False}, "all kills hit the same phase of saving"
    results(1).save(out)
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_full_disk_raises_output_error(tmp_path):
    """Save under 20 limits of the file size, which fail at different writes."""
    results(0).save(tmp_path / "expected")
    largest = max((tmp_path / "expected" / name).stat().st_size for name in TABLES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in np.unique(np.geomspace(1, largest - 1, 20).astype(int)).tolist():
        out = tmp_path / "out"
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OutputError) as caught:
                results(0).save(out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(caught.value).isprintable()
        assert not (out / "provenance.json").exists()
        assert not list(out.glob(".t3ssfast*")), "a temporary file is left"
        results(0).save(out)
        for name in (*TABLES, "provenance.json"):
            assert (out / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
            (out / name).unlink()
