"""Load mutated model files; each must load or raise ModelError.

`python mutate_archives.py COUNT SEED FOLDER` prints the numbers of refused and loaded files.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from pathlib import Path

import torch

from archives import BENIGN, classifier_file, read_archive, save_benign, write_archive
from t3ssfast.errors import ModelError
from t3ssfast.models import load_model

WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*|\d+")


def corrupt(rng: random.Random, content: bytes) -> bytes:
    """Change, delete, insert or truncate a few bytes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        position, choice = rng.randrange(len(changed)), rng.random()
        if choice < 0.6:
            changed[position] = rng.choice([0, 1, 0x28, 0x29, 0x2E, 0x7F, 0xFF, rng.randrange(256)])
        elif choice < 0.75:
            del changed[position : position + rng.randint(1, 8)]
        elif choice < 0.9:
            changed[position:position] = bytes(
                changed[(start := rng.randrange(len(changed))) : start + rng.randint(1, 16)]
            )
        else:
            del changed[position:]
    return bytes(changed)


def swap_words(rng: random.Random, content: bytes) -> bytes:
    """Replace words of code by other words of it, so that most results still parse."""
    words = list(WORD.finditer(content))
    if not words:
        return content
    for _ in range(rng.randint(1, 3)):
        old, new = rng.choice(words), rng.choice(words)
        content = content[: old.start()] + new[0] + content[old.end() :]
        words = list(WORD.finditer(content)) or words
    return content


def mutate(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """Mutate an archive; most keep correct checksums, so that the damage reaches the later checks."""
    changed, choice = dict(members), rng.random()
    if choice < 0.1:
        return corrupt(rng, write_archive(changed))
    name = rng.choice(list(changed))
    if choice < 0.15:
        del changed[name]
    elif choice < 0.2:
        changed[name] = changed[rng.choice(list(changed))]
    elif choice < 0.55:
        name = rng.choice([n for n in changed if n.endswith(".pkl")])
        changed[name] = corrupt(rng, changed[name])
    elif choice < 0.85:
        name = rng.choice([n for n in changed if n.endswith(".py")])
        changed[name] = swap_words(rng, changed[name]) if rng.random() < 0.7 else corrupt(rng, changed[name])
    else:
        changed[name] = corrupt(rng, changed[name])
    return write_archive(changed)


def main(count: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    originals = [("classifier", read_archive(classifier_file(folder / "original.pt")))]
    for number, name in enumerate(sorted(BENIGN)[::3]):
        path = folder / f"{number}.pt"
        originals.append((save_benign(name, path, with_metadata=False), read_archive(path)))
    refused = loaded = 0
    for _ in range(count):
        model_kind, members = rng.choice(originals)
        path = folder / "mutated.pt"
        path.write_bytes(mutate(rng, members))
        try:
            load_model(path, model_kind=model_kind)
            loaded += 1
        except ModelError as error:
            if not str(error).isprintable():
                raise
            refused += 1
    print(refused, loaded)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
