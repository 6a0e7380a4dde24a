"""A generator of TorchScript archives that are wrong in structure, not in bytes.

`generate(seed)` takes the archive of an honest small network and applies one to three edits to its code or
its pickles; one archive in ten stays honest. `hostile_archives()` is a fixed list of archives by name.
"""

from __future__ import annotations

import random

import code_edits
import pickle_edits
from archive_bases import BASES, base_archive
from hostile_archives import hostile_archives

__all__ = ["generate", "hostile_archives"]

HONEST_SHARE = 0.1
EDITS = code_edits.EDITS + pickle_edits.EDITS
WEIGHTS = code_edits.WEIGHTS + (1.0,) * len(pickle_edits.EDITS)
HARMLESS = code_edits.HARMLESS + pickle_edits.HARMLESS


def generate(seed: int) -> tuple[str, bytes]:
    """Make the archive of a seed.

    Returns
    -------
    What was done, after the model kind ("classifier" or "segmenter") and a colon; and the archive.
    """
    rng = random.Random(seed)
    model_kind, name, form = rng.choice(BASES)
    archive = base_archive(model_kind, name, form)
    done = []
    if rng.random() < HONEST_SHARE:
        for edit in rng.sample(HARMLESS, rng.randint(0, 2)):
            done.append(edit(rng, archive) or "nothing")
        return f"{model_kind}: honest {name}, {form}; {', '.join(done)}", archive.to_bytes()
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        # Not every edit applies to every archive.
        for _ in range(20):
            what = rng.choices(EDITS, WEIGHTS)[0](rng, archive)
            if what is not None:
                done.append(what)
                break
    return f"{model_kind}: {name}, {form}; {', '.join(done)}", archive.to_bytes()
