"""Loads mutated model files, each of which must load or raise ModelError.

`python mutate_archives.py COUNT SEED FOLDER` prints how many were refused and how many loaded.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from pathlib import Path

import torch

from archives import HONEST, classifier_file, honest_file, put_together, take_apart
from t3ssfast.errors import ModelError
from t3ssfast.models import load_model

WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*|\d+")


def flip(rng: random.Random, content: bytes) -> bytes:
    """A few bytes changed, taken out, put in, or moved."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        at, choice = rng.randrange(len(changed)), rng.random()
        if choice < 0.6:
            changed[at] = rng.choice([0, 1, 0x28, 0x29, 0x2E, 0x7F, 0xFF, rng.randrange(256)])
        elif choice < 0.75:
            del changed[at : at + rng.randint(1, 8)]
        elif choice < 0.9:
            changed[at:at] = bytes(
                changed[(start := rng.randrange(len(changed))) : start + rng.randint(1, 16)]
            )
        else:
            del changed[at:]
    return bytes(changed)


def swap_words(rng: random.Random, content: bytes) -> bytes:
    """Words of code exchanged for others of it, so that it mostly still parses."""
    words = list(WORD.finditer(content))
    if not words:
        return content
    for _ in range(rng.randint(1, 3)):
        one, other = rng.choice(words), rng.choice(words)
        content = content[: one.start()] + other[0] + content[one.end() :]
        words = list(WORD.finditer(content)) or words
    return content


def mutate(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """One mutated archive; most keep right checksums, so that the damage gets as far as it can."""
    changed, choice = dict(members), rng.random()
    if choice < 0.1:
        return flip(rng, put_together(changed))
    name = rng.choice(list(changed))
    if choice < 0.15:
        del changed[name]
    elif choice < 0.2:
        changed[name] = changed[rng.choice(list(changed))]
    elif choice < 0.55:
        name = rng.choice([n for n in changed if n.endswith(".pkl")])
        changed[name] = flip(rng, changed[name])
    elif choice < 0.85:
        name = rng.choice([n for n in changed if n.endswith(".py")])
        changed[name] = swap_words(rng, changed[name]) if rng.random() < 0.7 else flip(rng, changed[name])
    else:
        changed[name] = flip(rng, changed[name])
    return put_together(changed)


def main(count: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    originals = [("classifier", take_apart(classifier_file(folder / "original.pt")))]
    for number, name in enumerate(sorted(HONEST)[::3]):
        path = folder / f"{number}.pt"
        originals.append((honest_file(name, path, with_metadata=False), take_apart(path)))
    refused = loaded = 0
    for _ in range(count):
        kind, members = rng.choice(originals)
        path = folder / "mutated.pt"
        path.write_bytes(mutate(rng, members))
        try:
            load_model(path, model_kind=kind)
            loaded += 1
        except ModelError as error:
            if not str(error).isprintable():
                raise
            refused += 1
    print(refused, loaded)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
