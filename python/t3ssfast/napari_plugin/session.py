"""A session of curation: candidates in an order, verdicts on them, added picks, undo and redo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import LABELS, Candidates
from t3ssfast.curation.verdicts import apply_verdicts
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import display_path
from t3ssfast.io.particles import export
from t3ssfast.io.particles.curation import CURATION_SUFFIXES, load_all_curations, save_curation
from t3ssfast.io.tomogram_names import match_names
from t3ssfast.tomogram import StrPath

__all__ = ["ADDED", "ORDERS", "SHOWN", "CurationSession", "Key", "file_name"]

# A candidate: number of the tomogram, and row in it.
Key = tuple[int, int]

# The reason, among the details as "chosen_by", of particles that the detection did not find.
ADDED = "added"
# Score of a pick that a person added.
ADDED_SCORE = 1.0
ORDERS = ("highest score first", "least certain first", "by tomogram and score", "by tomogram and z")
SHOWN = ("all", "without a verdict", *LABELS)


@dataclass(frozen=True)
class _Change:
    """One step of the history: the label of a candidate before and after; None is absence."""

    key: Key
    before: str | None
    after: str | None


class CurationSession:
    """Verdicts on the candidates of one or more tomograms.

    Rows never change their number: an added pick that is undone stays as a row that is not present.

    Parameters
    ----------
    candidates
        One entry for each tomogram, with different names; their labels are the verdicts to begin with.
    """

    def __init__(self, candidates: Sequence[Candidates]) -> None:
        names = [some.tomogram_name for some in candidates]
        if not names or len(set(names)) != len(names):
            raise InputError(f"candidates: the tomograms are {names}; give at least one, each once.")
        self._candidates = list(candidates)
        self._present = [np.ones(len(some), bool) for some in candidates]
        self._done: list[_Change] = []
        self._undone: list[_Change] = []
        self._order: list[Key] = []
        self._place = 0
        self._criteria: tuple[str, str, float] = (ORDERS[0], SHOWN[0], 0.0)
        self.unsaved = 0
        self.arrange()

    @property
    def order(self) -> list[Key]:
        """The candidates that are shown, in their order."""
        return list(self._order)

    @property
    def current(self) -> Key | None:
        """The candidate that the next verdict is about; None where none is shown."""
        return self._order[self._place] if self._order else None

    @property
    def place(self) -> int:
        """Index of the current candidate in `order`."""
        return self._place

    def candidates(self, tomogram: int) -> Candidates:
        """Return all rows of a tomogram with their labels, also those that are not present."""
        return self._candidates[tomogram]

    def present(self, tomogram: int) -> npt.NDArray[np.bool_]:
        """Return (n,) which rows are present: those of added picks that were undone are not."""
        return self._present[tomogram].copy()

    def shown(self, tomogram: int) -> npt.NDArray[np.bool_]:
        """Return (n,) which rows of a tomogram are in `order`."""
        mask = np.zeros(len(self._candidates[tomogram]), bool)
        mask[[row for number, row in self._order if number == tomogram]] = True
        return mask

    def label(self, key: Key) -> str:
        """Return the verdict on a candidate, or ""."""
        return str(self._candidates[key[0]].label[key[1]])

    def counts(self) -> dict[str, int]:
        """Return the number of candidates with each verdict; "" are those without one."""
        counts = dict.fromkeys((*LABELS, ""), 0)
        for some, present in zip(self._candidates, self._present, strict=True):
            for label in some.label[present].tolist():
                counts[label] += 1
        return counts

    def arrange(
        self, order: str | None = None, shown: str | None = None, min_score: float | None = None
    ) -> None:
        """Choose the candidates that are shown, and sort them; the current one stays, if it is shown.

        Candidates that get a verdict afterwards stay in their place until the next call. Parameters that are
        not given keep their values.

        Parameters
        ----------
        order
            One of `ORDERS`.
        shown
            One of `SHOWN`.
        min_score
            Lower limit of the scores. Added picks are shown whatever their score.
        """
        old_order, old_shown, old_score = self._criteria
        criteria = (order or old_order, shown or old_shown, old_score if min_score is None else min_score)
        for name, value, known in zip(("order", "shown"), criteria[:2], (ORDERS, SHOWN), strict=True):
            if value not in known:
                raise ConfigError(f"{name}: {value!r} is not among {', '.join(known)}; give one of these.")
        self._criteria = criteria
        before = self.current
        self._order = self._sorted(*criteria)
        if before in self._order:
            self._place = self._order.index(before)
        else:
            self._place = min(self._place, max(0, len(self._order) - 1))

    def _sorted(self, order: str, shown: str, min_score: float) -> list[Key]:
        keys: list[Key] = []
        columns: list[tuple[float, ...]] = []
        for number, (some, present) in enumerate(zip(self._candidates, self._present, strict=True)):
            for row in np.flatnonzero(present).tolist():
                label, score = str(some.label[row]), float(some.score[row])
                if shown != "all" and label != ("" if shown == SHOWN[1] else shown):
                    continue
                if score < min_score:
                    continue
                keys.append((number, row))
                z = float(some.centre_zyx[row, 0])
                by: dict[str, tuple[float, ...]] = {ORDERS[0]: (-score,), ORDERS[1]: (abs(score - 0.5),)}
                by |= {ORDERS[2]: (number, -score), ORDERS[3]: (number, z)}
                columns.append(by[order])
        return [keys[k] for k in sorted(range(len(keys)), key=lambda k: columns[k])]

    def step(self, steps: int) -> None:
        """Go on by some candidates, or back; stop at the first and the last."""
        self._place = int(np.clip(self._place + steps, 0, max(0, len(self._order) - 1)))

    def step_tomogram(self, steps: int) -> None:
        """Go to the first shown candidate of the next tomogram, or of the one before."""
        if self.current is None:
            return
        numbers = sorted({number for number, _ in self._order})
        place = numbers.index(self.current[0]) + steps
        if 0 <= place < len(numbers):
            self.go_to(next(key for key in self._order if key[0] == numbers[place]))

    def go_to(self, key: Key) -> None:
        """Make a candidate the current one; one that is not shown is ignored."""
        if key in self._order:
            self._place = self._order.index(key)

    def judge(self, label: str) -> None:
        """Give a verdict on the current candidate, one of `LABELS` or "", and go on to the next.

        Giving the verdict that a candidate has takes it away, and stays.
        """
        if label not in ("", *LABELS):
            raise ConfigError(f"label: {label!r} is unknown; give {', '.join(LABELS)}, or nothing.")
        key = self.current
        if key is None:
            return
        before = self.label(key)
        after = "" if label == before else label
        if after != before:
            self._do(_Change(key, before, after))
        if after:
            self.step(1)

    def add(self, tomogram: int, centre_zyx: npt.ArrayLike, normal_zyx: npt.ArrayLike) -> Key:
        """Add an accepted particle that the detection did not find, and make it the current one.

        Parameters
        ----------
        tomogram
            Number of the tomogram.
        centre_zyx
            (3,) in voxels of its candidates.
        normal_zyx
            (3,) direction out of the cell.
        """
        some = self._candidates[tomogram]
        details: dict[str, Any] = {
            "chosen_by": np.append(
                some.details.get("chosen_by", np.full(len(some), "")).astype("<U32"), ADDED
            )
        }
        for name, values in some.details.items():
            if name != "chosen_by":
                missing = np.nan if values.dtype.kind in "iuf" else ""
                details[name] = np.append(values, missing)
        more = replace(
            some[:0],
            centre_zyx=np.reshape(np.asarray(centre_zyx, np.float32), (1, 3)),
            score=np.array([ADDED_SCORE], np.float32),
            normal_zyx=np.reshape(np.asarray(normal_zyx, np.float32), (1, 3)),
            kind=np.array(["t3ss"]),
            rot_degrees=np.zeros(1, np.float32),
            label=np.array([""]),
            details={},
        )
        self._candidates[tomogram] = replace(replace(some, details={}).joined(more), details=details)
        self._present[tomogram] = np.append(self._present[tomogram], False)
        key = (tomogram, len(some))
        self._do(_Change(key, None, "accepted"))
        return key

    def undo(self) -> None:
        """Take back the last verdict or added pick."""
        if self._done:
            change = self._done.pop()
            self._undone.append(change)
            self._apply(change.key, change.before)

    def redo(self) -> None:
        """Repeat what was undone last."""
        if self._undone:
            change = self._undone.pop()
            self._done.append(change)
            self._apply(change.key, change.after)

    def _do(self, change: _Change) -> None:
        self._done.append(change)
        self._undone.clear()
        self._apply(change.key, change.after)

    def _apply(self, key: Key, label: str | None) -> None:
        """Set the label of a candidate, or its absence, and make it the current one."""
        number, row = key
        labels = self._candidates[number].label.astype("<U8")
        labels[row] = label or ""
        self._candidates[number] = replace(self._candidates[number], label=labels)
        self._present[number][row] = label is not None
        if label is None:
            if key in self._order:
                self._order.remove(key)
            self._place = min(self._place, max(0, len(self._order) - 1))
        else:
            if key not in self._order:
                self._order.insert(min(self._place + 1, len(self._order)), key)
            self._place = self._order.index(key)
        self.unsaved += 1

    def labelled(self) -> list[Candidates]:
        """Return the candidates that are present, with their verdicts, one entry for each tomogram."""
        return [some[mask] for some, mask in zip(self._candidates, self._present, strict=True)]

    def save(self, path: StrPath) -> list[Path]:
        """Write the verdicts: a curation file by its suffix, or the accepted picks as copick runs.

        Parameters
        ----------
        path
            .json, .csv or .star; a name without suffix is a copick folder, with a run for each tomogram.

        Returns
        -------
        The files and folders written.

        Raises
        ------
        ConfigError
            If the suffix is another.
        OutputError
            If a file cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() in CURATION_SUFFIXES:
            written = [save_curation(self.labelled(), target)]
        elif target.suffix and not target.is_dir():
            raise ConfigError(
                f"{display_path(path)}: the suffix of a curation file is {', '.join(CURATION_SUFFIXES)}, and "
                "a copick folder has none; change the name."
            )
        else:
            written = []
            for some in self.labelled():
                run = target / file_name(some.tomogram_name)
                export(some[some.label == "accepted"], run, "copick")
                written.append(run)
        self.unsaved = 0
        return written

    def load(self, path: StrPath) -> int:
        """Put the verdicts of a curation file on the candidates; return how many are about them.

        Accepted particles that are no candidates are added as picks. The history begins anew.

        Raises
        ------
        ReadError
            If the file cannot be read.
        InputError
            If it is of other tomograms.
        """
        verdicts = load_all_curations(path)
        names = [some.tomogram_name for some in self._candidates]
        if not match_names([some.tomogram_name for some in verdicts], names):
            raise InputError(
                f"{display_path(path)}: none of its tomograms is among {', '.join(names[:5])}; give the "
                "curation of these tomograms."
            )
        labelled, others = apply_verdicts(self.labelled(), verdicts)
        self._candidates = labelled
        self._present = [np.ones(len(some), bool) for some in labelled]
        for number, more in enumerate(others):
            scale = more.voxel_size_angstrom / labelled[number].voxel_size_angstrom
            for row in np.flatnonzero(more.label == "accepted"):
                self.add(number, more.centre_zyx[row] * scale, more.normal_zyx[row])
        self._done, self._undone = [], []
        self.unsaved = 0
        self.arrange()
        return sum(int((some.label[mask] != "").sum()) for some, mask in self._rows())

    def _rows(self) -> list[tuple[Candidates, npt.NDArray[np.bool_]]]:
        return list(zip(self._candidates, self._present, strict=True))


def file_name(tomogram_name: str) -> str:
    """Return a name of a folder for a tomogram; names come from files and may hold separators."""
    kept = "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in tomogram_name)
    return kept if kept.strip(". ") else "tomogram"
