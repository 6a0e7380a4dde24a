"""The loop of curation in a simulated domain that the bundled models were not trained on: its steps but one.

The step that is missing, the verdicts, is what the tests differ in: by Python, in the page, in napari.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

import t3ssfast as t3
from command_line import CliRunner
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.curation import find_results
from t3ssfast.training.few_shot import UNSEEN_DOMAIN

# The models find most T3SS of that domain; with more noise, verdicts have something to teach.
DOMAIN = UNSEEN_DOMAIN | {"noise_scale": 3.6}
TOLERANCE_ANGSTROM = 120.0
# Threshold of a detection by default, and the lowest score that is looked at: the models are uncertain here.
THRESHOLD, SHOWN_SCORE = 0.5, 0.001


@dataclass(frozen=True)
class Size:
    """How much a loop does; `wrong` is the share of wrong verdicts."""

    judged: int
    held_out: int
    shape: str
    verdicts: int
    steps: int
    folds: int
    wrong: float


SHORT = Size(judged=2, held_out=2, shape="32,160,160", verdicts=14, steps=8, folds=2, wrong=0.0)
LONG = Size(judged=6, held_out=4, shape="40,192,192", verdicts=40, steps=40, folds=3, wrong=0.05)


@dataclass
class CurationLoop:
    """Tomograms to judge in `tomograms`, others to measure on in `others`, and what is made of them."""

    folder: Path
    size: Size
    truth: dict[str, Candidates] = field(default_factory=dict)

    def run(self, *arguments: object) -> str:
        """Run a command of t3ssfast; return what it printed."""
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.output

    def simulate(self) -> None:
        """Simulate the tomograms, TS_01 and so on."""
        domain = [f"--set={name}={value}" for name, value in DOMAIN.items()]
        for k in range(self.size.judged + self.size.held_out):
            name, place = f"TS_{k + 1:02d}", "tomograms" if k < self.size.judged else "others"
            made = self.folder / "simulated" / name
            made.parent.mkdir(exist_ok=True)
            self.run("simulate", "-o", made, "--seed", 25_200_000 + k, "--shape", self.size.shape, *domain)
            (self.folder / place).mkdir(exist_ok=True)
            shutil.move(made / "tomogram.mrc", self.folder / place / f"{name}.mrc")
            self.truth[name] = t3.load_candidates(made / "truth.csv")

    def names(self, place: str) -> list[str]:
        """Return the names of the tomograms of a folder."""
        return sorted(path.stem for path in (self.folder / place).glob("*.mrc"))

    def detect(self, place: str, out: str, *options: object) -> Path:
        """Detect in the tomograms of a folder, down to low scores."""
        common = ("--threshold", SHOWN_SCORE, "--no-png", "--device", "cpu")
        self.run("detect", self.folder / place, "-o", self.folder / out, *common, *options)
        return self.folder / out

    def suggest(self, found: Path) -> Path:
        """Suggest candidates to judge."""
        self.run("suggest", found, "-n", self.size.verdicts, "-o", self.folder / "suggested.json")
        return self.folder / "suggested.json"

    def verdict(self, tomogram: str, centre_zyx: Sequence[float]) -> str:
        """Return the verdict of the annotator on a candidate, which does not depend on the others'."""
        truth = self.truth[tomogram]
        distance, _ = KDTree(truth.centre_zyx).query(centre_zyx)
        is_true = distance * truth.voxel_size_angstrom <= TOLERANCE_ANGSTROM
        place = f"{tomogram} {' '.join(str(round(value)) for value in centre_zyx)}"
        is_wrong = np.random.default_rng(zlib.crc32(place.encode())).random() < self.size.wrong
        return "accepted" if is_true != is_wrong else "rejected"

    def tune(self, verdicts: Path, found: Path) -> Path:
        """Fine-tune the verifier on verdicts."""
        names = self.names("tomograms")
        files = [self.folder / "tomograms" / f"{name}.mrc" for name in names]
        masks = [f"--membranes={found / name / 'membrane.mrc'}" for name in names]
        steps = ("--steps", self.size.steps, "--folds", self.size.folds)
        out = self.folder / "tuned.pt"
        self.run("train", "tune", *files, "-p", verdicts, "-o", out, *masks, *steps)
        return out

    def measure(self, found: Path) -> dict[str, float]:
        """Return F1, precision and recall at the default threshold, and the number of T3SS."""
        results = find_results(found)
        kept = [one.candidates[one.candidates.score >= THRESHOLD] for one in results]
        result = t3.evaluate(kept, [self.truth[one.name] for one in results], TOLERANCE_ANGSTROM)
        figures = {name: round(float(getattr(result, name)), 3) for name in ("f1", "precision", "recall")}
        return {**figures, "t3ss": result.n_truth}
