"""Retries, tomograms that others work on, and bounded submission, on an engine of the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from t3ssfast.cluster import coordinator
from t3ssfast.cluster.coordinator import run_tasks
from t3ssfast.cluster.display import Display
from t3ssfast.cluster.task import Outcome, Task

Answers = dict[str, list[str]]
AGAIN = {"killed", "lost", "retry"}


def make_task(name: str) -> Task:
    return Task(name, Path(f"{name}.mrc"), Path("out", name), "/", name, b"", "cpu", None, 1, None)


class ScriptedEngine:
    """Answers each attempt with the next status of the tomogram's list."""

    capacity = 3

    def __init__(self, answers: Answers) -> None:
        self._answers = {name: iter(statuses) for name, statuses in answers.items()}
        self._open: list[tuple[Future[Outcome], Task]] = []
        self.attempts: Counter[str] = Counter()
        self.most = 0
        self.closed = False
        self.fails = False

    def submit(self, task: Task) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self._open.append((future, task))
        self.most = max(self.most, len(self._open))
        return future

    def check(self) -> None:
        # Nothing has ended since: end the last one, so that the order is not that of the list.
        if self.fails:
            raise RuntimeError("the engine is gone")
        if not self._open:
            return
        future, task = self._open.pop()
        self.attempts[task.name] += 1
        status = next(self._answers[task.name])
        error = "" if status == "done" else f"{task.name} was {status}"
        shown = "failed" if status == "retry" else status
        future.set_result(Outcome(task.name, shown, error=error, again=status in AGAIN))

    def outcome(self, future: Future[Outcome], task: Task) -> Outcome:
        return future.result()

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(coordinator, "TICK_SECONDS", 0.001)


@pytest.fixture
def run() -> Callable[..., tuple[dict[str, Outcome], ScriptedEngine, list[str]]]:
    def run(answers: Answers, retries: int = 2) -> tuple[dict[str, Outcome], ScriptedEngine, list[str]]:
        engine, said = ScriptedEngine(answers), []
        tasks = [make_task(name) for name in answers]
        with Display(tasks, table=False, say=lambda text, problem: said.append(text)) as display:
            outcomes = run_tasks(tasks, engine=engine, retries=retries, display=display)
            assert display.counts()["running"] == display.counts()["waiting"] == 0
        assert engine.closed
        return outcomes, engine, said

    return run


def test_every_task_has_one_outcome(run):
    answers = {f"TS_{number}": ["done"] for number in range(20)}
    outcomes, engine, said = run(answers)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(answers, "done")
    assert engine.most == 3
    assert set(engine.attempts.values()) == {1}
    assert len(said) == 20


@pytest.mark.parametrize("how", ["killed", "lost", "retry"])
def test_attempts_that_may_succeed_are_repeated(run, how):
    outcomes, engine, said = run({"a": [how, how, "done"], "b": ["done"]})
    assert outcomes["a"].status == "done"
    assert engine.attempts == {"a": 3, "b": 1}
    assert sum("another follows" in line for line in said) == 2
    outcomes, engine, _ = run({"a": [how] * 3}, retries=2)
    assert outcomes["a"].status == "failed"
    assert engine.attempts["a"] == 3
    _, engine, _ = run({"a": [how]}, retries=0)
    assert engine.attempts["a"] == 1


@pytest.mark.parametrize("how", ["failed", "poisoned", "skipped"])
def test_other_outcomes_are_final(run, how):
    outcomes, engine, _ = run({"a": [how], "b": ["done"]})
    assert outcomes["a"].status == how
    assert engine.attempts["a"] == 1


def test_tomograms_of_another_process_are_tried_until_it_has_ended(run):
    outcomes, engine, said = run({"a": ["busy"] * 7 + ["skipped"], "b": ["done"]}, retries=0)
    assert outcomes["a"].status == "skipped"
    assert engine.attempts["a"] == 8
    assert sum(line.startswith("postponed: ") for line in said) == 1


def test_the_engine_is_closed_whatever_happens():
    tasks: list[Any] = [make_task("a")]
    engine = ScriptedEngine({"a": ["done"]})
    engine.fails = True
    with pytest.raises(RuntimeError, match="gone"), Display(tasks, table=False) as display:
        run_tasks(tasks, engine=engine, retries=0, display=display)
    assert engine.closed
