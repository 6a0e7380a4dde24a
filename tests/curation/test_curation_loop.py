"""Detect, judge, fine-tune, detect again: more is found in tomograms that nobody judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import t3ssfast as t3
from curation_loop import LONG, SHORT, CurationLoop


@pytest.mark.timeout(3600)
def test_verdicts_improve_the_detection(tmp_path, soak):
    loop = CurationLoop(tmp_path, LONG if soak else SHORT)
    loop.simulate()
    found = loop.detect("tomograms", "found")
    before = loop.measure(loop.detect("others", "others_before"))
    judged = []
    for some in t3.load_all_curations(loop.suggest(found)):
        label = [loop.verdict(some.tomogram_name, centre) for centre in some.centre_zyx]
        judged.append(replace(some, label=np.array(label)))
    tuned = loop.tune(t3.save_curation(judged, tmp_path / "verdicts.json"), found)
    after = loop.measure(loop.detect("others", "others_after", "--verifier", tuned))
    print(before, after)
    assert after["f1"] > before["f1"] + 0.05
