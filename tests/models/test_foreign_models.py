"""Model files of other people: honest ones give PyTorch's answers, hostile ones are refused or harmless."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from honest_models import CASES, MODELS, NAMES, save_form
from run_foreign import ForeignRunner, Outcome
from torchscript_grammar import generate, hostile_archives

from processes import python
from t3ssfast.models import load_model

HOSTILE = hostile_archives()


@pytest.fixture(scope="module")
def runner() -> Iterator[ForeignRunner]:
    with ForeignRunner(seconds=15.0) as runner:
        yield runner


@pytest.fixture(scope="module")
def pytorch() -> Iterator[ForeignRunner]:
    """torch.jit itself, in children of its own because generated archives can end it."""
    with ForeignRunner(seconds=15.0, by_pytorch=True) as runner:
        yield runner


# ---------------------------------------------------------------------------------------------- honest models


def in_ordinary_runs(name: str, form: str) -> bool:
    """Whether a form is tested in every run: one form of each model, another one for its neighbour."""
    forms = MODELS[name].forms
    return form == forms[NAMES.index(name) % len(forms)]


HONEST = [
    pytest.param(
        name, form, marks=() if in_ordinary_runs(name, form) else pytest.mark.slow, id=f"{name}, {form}"
    )
    for name, form in CASES
]


def assert_torchs_answers(path: Path, inputs: list[torch.Tensor], model_kind: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        reference = torch.jit.load(path, map_location="cpu").eval()
    loaded = load_model(path, model_kind=model_kind)
    for number, x in enumerate(inputs):
        with torch.inference_mode():
            try:
                expected = reference(x)
            except RuntimeError:
                # Traces can hold the size of their example; the first input is that example.
                assert number > 0
                continue
            actual = loaded.module(x)
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(("name", "form"), HONEST)
def test_honest_models_give_torchs_answers(tmp_path: Path, name: str, form: str) -> None:
    model = MODELS[name]
    if model.missing:
        pytest.skip(f"{', '.join(model.missing)} not installed")
    path = tmp_path / "model.pt"
    inputs = save_form(name, form, path)
    if model.accepted:
        assert_torchs_answers(path, inputs, model.model_kind)
    else:
        # Two channels for background and membrane become one.
        adapted = load_model(path, model_kind=model.model_kind).module(inputs[0])
        assert adapted.shape == (len(inputs[0]), 1, *inputs[0].shape[2:])


@pytest.mark.parametrize(
    "name", ["lenet tutorial", "lenet view, softmax", "resnet", "unet", "unet sigmoid", "smp style"]
)
def test_honest_models_without_metadata(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    inputs = save_form(name, "scripted", path, with_metadata=False)
    with pytest.warns(UserWarning, match="holds no t3ssfast metadata"):
        assert_torchs_answers(path, inputs, MODELS[name].model_kind)
    with pytest.warns(UserWarning, match=f"{MODELS[name].output} as output"):
        load_model(path, model_kind=MODELS[name].model_kind)


# ------------------------------------------------------------------------------------------- hostile archives


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_or_harmless(runner: ForeignRunner, name: str) -> None:
    assert runner.run_bytes(HOSTILE[name](), "classifier", name).faults() == []


def test_generated_archives_are_refused_or_give_torchs_answers(
    runner: ForeignRunner, pytorch: ForeignRunner, soak: bool
) -> None:
    faulty = []
    for seed in range(20_000 if soak else 200):
        what, content = generate(seed)
        model_kind = what.split(":")[0]
        outcome = runner.run_bytes(content, model_kind, f"seed {seed} ({what})")
        faults = outcome.faults(finite=False)
        if outcome.what == "answered":
            # What torch.jit refuses, or dies of, has no answer to compare.
            reference = pytorch.run_bytes(content, model_kind, "torch.jit")
            if reference.what == "answered" and outcome.differs(reference):
                faults.append(f"the answer is unlike torch.jit's {reference}")
        elif ": honest " in what:
            faults.append("an honest archive is not answered")
        if faults:
            faulty.append(f"{outcome}: {'; '.join(faults)}")
    assert not faulty, "\n".join(faulty)


def test_generated_archives_depend_on_the_seed_alone() -> None:
    archives = [generate(seed) for seed in range(60)]
    assert archives[::-1] == [generate(seed) for seed in reversed(range(60))]
    assert len({content for _, content in archives}) > 50
    assert 2 <= sum(": honest " in what for what, _ in archives) <= 12


def test_generated_archives_are_the_same_in_every_process() -> None:
    script = """
        import hashlib
        from torchscript_grammar import generate
        print(hashlib.sha256(repr([generate(seed) for seed in (5, 3, 4)]).encode()).hexdigest())
    """
    done = python(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = repr([generate(seed) for seed in (5, 3, 4)]).encode()
    assert done.stdout.strip() == hashlib.sha256(expected).hexdigest()


# ------------------------------------------------------------------------------------------------- the runner


def test_runner_replaces_children_that_end(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK")
    with ForeignRunner(seconds=20.0) as runner:
        assert runner.run(path, "classifier").what == "refused"
        assert runner.run(tmp_path / "missing.pt", "classifier").what == "refused"
        assert runner.started == 1
        child = runner._child
        assert child is not None
        child.kill()
        outcome = runner.run(path, "classifier")
        assert (outcome.what, outcome.sentence) == ("crashed", "SIGKILL")
        assert runner.run(path, "classifier").what == "refused"
        assert runner.started == 2


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome("a", "crashed", "SIGSEGV"), "crashed"),
        (Outcome("a", "hung"), "hung"),
        (Outcome("a", "failed", "KeyError: 1"), "failed"),
        (Outcome("a", "answered", finite=False), "NaN"),
        (Outcome("a", "refused", "Two\nlines."), "one printable line"),
        (Outcome("a", "refused", "An \x1b escape."), "one printable line"),
        (Outcome("a", "refused", "No sentence"), "end"),
        (Outcome("a", "refused", "a <b>page</b>."), "HTML"),
        (Outcome("a", "refused", "The sum is LEAKED 3.5."), "read"),
        (Outcome("a", "refused", "A sentence.", seconds=11), "took 11.0 s"),
        (Outcome("a", "refused", "A sentence.", peak_mb=2000), "took 2000 MB"),
        (Outcome("a", "answered", finite=True, printed="\x1b[2J"), "printed"),
        (Outcome("a", "answered", finite=True, created=("canary",)), "created canary"),
    ],
)
def test_outcomes_report_faults(outcome: Outcome, fault: str) -> None:
    assert [fault in found for found in outcome.faults()] == [True]
    assert Outcome("a", "refused", "A sentence.").faults() == []
