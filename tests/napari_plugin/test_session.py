"""Curation without a window: order, verdicts, undo, added picks, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import t3ssfast as t3
from t3ssfast.candidates import LABELS, Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.napari_plugin.session import ORDERS, CurationSession


def some_candidates(name="A", scores=(0.9, 0.6, 0.2)):
    rng = np.random.default_rng(len(name))
    n = len(scores)
    return Candidates(
        rng.uniform(0, 50, (n, 3)),
        np.array(scores),
        rng.normal(size=(n, 3)),
        10.0,
        (50, 50, 50),
        name,
        details={"classifier_score": np.linspace(1, 0, n, dtype=np.float32)},
    )


@pytest.fixture
def session():
    return CurationSession([some_candidates("A"), some_candidates("BB", (0.8, 0.45))])


def labels(session):
    return [some.label.tolist() for some in session.labelled()]


def test_orders(session):
    orders = {}
    for order in ORDERS:
        session.arrange(order)
        orders[order] = session.order
    assert orders[ORDERS[0]] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert orders[ORDERS[1]] == [(1, 1), (0, 1), (0, 2), (1, 0), (0, 0)]
    assert orders[ORDERS[2]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    by_z = [session.candidates(number).centre_zyx[row, 0] for number, row in orders[ORDERS[3]]]
    assert by_z[:3] == sorted(by_z[:3])
    assert by_z[3:] == sorted(by_z[3:])


def test_threshold_and_verdict_choose_what_is_shown(session):
    session.arrange(min_score=0.5)
    assert session.order == [(0, 0), (1, 0), (0, 1)]
    assert session.shown(0).tolist() == [True, True, False]
    session.judge("accepted")
    # It stays in its place until the list is arranged again.
    assert len(session.order) == 3
    session.arrange(shown="without a verdict")
    assert session.order == [(1, 0), (0, 1)]
    session.arrange(shown="accepted", min_score=0)
    assert session.order == [(0, 0)]
    session.arrange(min_score=0.95)
    assert session.current is None
    session.judge("rejected")
    assert labels(session) == [["accepted", "", ""], ["", ""]]


def test_a_verdict_goes_on_and_the_same_again_takes_it_back(session):
    for label in ("accepted", "rejected", "unsure"):
        session.judge(label)
    assert labels(session) == [["accepted", "unsure", ""], ["rejected", ""]]
    assert session.place == 3
    session.go_to((0, 0))
    session.judge("accepted")
    assert session.label((0, 0)) == ""
    assert session.current == (0, 0)
    assert session.counts() == {"accepted": 0, "rejected": 1, "unsure": 1, "": 3}


def test_undo_and_redo_return_to_the_candidate(session):
    session.judge("accepted")
    session.judge("rejected")
    session.undo()
    assert labels(session) == [["accepted", "", ""], ["", ""]]
    assert session.current == (1, 0)
    session.redo()
    assert labels(session)[1] == ["rejected", ""]
    session.undo()
    session.judge("unsure")
    session.redo()
    assert labels(session)[1] == ["unsure", ""]
    for _ in range(5):
        session.undo()
    assert labels(session) == [["", "", ""], ["", ""]]


def test_an_added_pick_can_be_undone(session):
    key = session.add(1, [1, 2, 3], [0, 3, 4])
    assert session.current == key == (1, 2)
    added = session.labelled()[1][[2]]
    np.testing.assert_allclose(added.normal_zyx, [[0, 0.6, 0.8]], rtol=1e-6)
    assert added.label.tolist() == ["accepted"]
    assert added.details["chosen_by"].tolist() == ["added"]
    assert np.isnan(added.details["classifier_score"]).all()
    session.undo()
    assert [len(some) for some in session.labelled()] == [3, 2]
    assert key not in session.order
    session.redo()
    assert [len(some) for some in session.labelled()] == [3, 3]
    session.judge("rejected")
    session.undo()
    assert session.label(key) == "accepted"


@given(st.lists(st.sampled_from([*LABELS, "", "add", "undo", "redo", "on", "back", "arrange"]), max_size=40))
def test_undoing_everything_restores_the_beginning(actions):
    session = CurationSession([some_candidates("A"), some_candidates("BB", (0.8, 0.45))])
    before = labels(session)
    for action in actions:
        if action == "add":
            session.add(0, [1, 2, 3], [1, 0, 0])
        elif action in ("undo", "redo"):
            getattr(session, action)()
        elif action in ("on", "back"):
            session.step(1 if action == "on" else -1)
        elif action == "arrange":
            session.arrange(ORDERS[len(actions) % 4], min_score=0.3)
        else:
            session.judge(action)
    middle = labels(session)
    for _ in actions:
        session.undo()
    assert labels(session) == before
    for _ in actions:
        session.redo()
    while labels(session) != middle:
        # Actions that had been undone before are repeated, too.
        session.undo()


def test_stepping_over_tomograms(session):
    session.step_tomogram(1)
    assert session.current == (1, 0)
    session.step_tomogram(1)
    assert session.current == (1, 0)
    session.step_tomogram(-1)
    assert session.current == (0, 0)
    session.step(-1)
    assert session.place == 0
    session.step(99)
    assert session.place == 4


@pytest.mark.parametrize("suffix", [".json", ".csv", ".star"])
def test_verdicts_survive_a_file(session, tmp_path, suffix):
    session.judge("accepted")
    session.judge("rejected")
    session.add(0, [10, 20, 30], [0, 1, 0])
    assert session.unsaved == 3
    (path,) = session.save(tmp_path / f"verdicts{suffix}")
    assert session.unsaved == 0
    again = CurationSession([some_candidates("A"), some_candidates("BB", (0.8, 0.45))])
    assert again.load(path) == 3
    assert labels(again) == labels(session)
    np.testing.assert_allclose(again.labelled()[0].centre_zyx[3], [10, 20, 30], atol=1e-3)
    again.undo()
    assert labels(again) == labels(session)


def test_copick_holds_what_was_accepted(session, tmp_path):
    session.judge("accepted")
    session.judge("rejected")
    runs = session.save(tmp_path / "picks")
    assert [run.name for run in runs] == ["A", "BB"]
    picks = t3.load_candidates(runs[0], voxel_size_angstrom=10.0)
    np.testing.assert_allclose(picks.centre_zyx, session.candidates(0).centre_zyx[:1], atol=1e-3)
    assert len(t3.load_candidates(runs[1], voxel_size_angstrom=10.0)) == 0


def test_names_of_tomograms_cannot_leave_the_copick_folder(tmp_path):
    hostile = replace(some_candidates("A"), tomogram_name="../../etc/x")
    (run,) = CurationSession([hostile]).save(tmp_path / "picks")
    assert run.parent == tmp_path / "picks"


def test_errors_say_what_to_do(session, tmp_path):
    with pytest.raises(ConfigError, match=r"verdicts\.txt: the suffix"):
        session.save(tmp_path / "verdicts.txt")
    with pytest.raises(ConfigError, match="order: 'best'"):
        session.arrange("best")
    with pytest.raises(ConfigError, match="label: 'good'"):
        session.judge("good")
    t3.save_curation(some_candidates("other"), tmp_path / "other.json")
    with pytest.raises(InputError, match="none of its tomograms"):
        session.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="each once"):
        CurationSession([some_candidates("A"), some_candidates("A")])
