"""Results are saved whole or not at all, whatever ends the process and however full the disk is."""

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
from pathlib import Path

import numpy as np
import pytest
from test_names import candidates_named

import t3ssfast as t3
from processes import search_path
from t3ssfast.errors import OutputError

TABLES = ("candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl", "membrane.mrc")


def results(number: int) -> t3.Detection:
    """Results that can be told from those of another number in every file."""
    some = candidates_named(f"TS_{number}")
    some = replace(some, score=some.score - 0.1 * number, centre_zyx=some.centre_zyx + number)
    membrane = np.full((20, 300, 400), number, np.uint8)
    return t3.Detection(some, membrane, {"number": number})


def kill_while_saving(times: int, tmp_path: Path) -> None:
    whole: dict[str, set[bytes]] = {name: set() for name in TABLES}
    for number in (0, 1):
        results(number).save(tmp_path / f"{number}")
        for name in TABLES:
            whole[name].add((tmp_path / f"{number}" / name).read_bytes())
    out = tmp_path / "out"
    # One process that has imported everything forks those that are killed.
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
            print("gone", flush=True)
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
    seen = {True: 0, False: 0}
    for _ in range(times):
        parent.stdin.write("go\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        time.sleep(float(rng.uniform(0.0, 0.3)))
        os.kill(child, signal.SIGKILL)
        assert parent.stdout.readline() == "gone\n"
        done = (out / "provenance.json").exists()
        seen[done] += 1
        for name in TABLES:
            path_of = out / name
            if path_of.exists():
                assert path_of.read_bytes() in whole[name], f"{name} is torn"
        if done:
            number = json.loads((out / "provenance.json").read_text())["number"]
            for name in TABLES:
                assert (out / name).read_bytes() == (tmp_path / f"{number}" / name).read_bytes()
    parent.stdin.close()
    assert parent.wait(timeout=100) == 0
    parent.stdout.close()
    if times > 50:
        assert min(seen.values()) > 0, "kills fell on both sides of the mark"
    results(1).save(out)
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_a_kill_leaves_no_torn_file(tmp_path):
    kill_while_saving(10, tmp_path)


@pytest.mark.slow
def test_two_hundred_kills_leave_no_torn_file(tmp_path):
    kill_while_saving(200, tmp_path)


def test_a_disk_that_is_full_is_one_sentence_and_not_done(tmp_path):
    """Twenty limits on what a file may hold, each of which stops another write."""
    results(0).save(tmp_path / "want")
    largest = max((tmp_path / "want" / name).stat().st_size for name in TABLES)
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
        assert not list(out.glob(".t3ssfast*")), "nothing is left over"
        results(0).save(out)
        for name in (*TABLES, "provenance.json"):
            assert (out / name).read_bytes() == (tmp_path / "want" / name).read_bytes()
            (out / name).unlink()
