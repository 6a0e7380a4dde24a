"""Which scored candidates are reported: of overlapping particles, the ones that can stand there."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from t3ssfast.candidates import FLAGELLAR_MOTOR, T3SS, Candidates
from t3ssfast.detection.assemble import CERTAIN_T3SS, MIN_MOTOR_DISTANCE_NM, overlapping_motors
from toy import VOXEL

NM = VOXEL / 10


def candidates(x_nm: list[float], score: list[float], kind: list[str]) -> Candidates:
    """Candidates on a line along x, by falling score."""
    order = np.argsort(-np.array(score), kind="stable")
    centre = np.zeros((len(x_nm), 3), np.float32)
    centre[:, 2] = np.array(x_nm) / NM
    whole = Candidates(
        centre,
        np.array(score, np.float32),
        np.tile([1.0, 0, 0], (len(x_nm), 1)),
        VOXEL,
        None,
        "line",
        np.array(kind, dtype=str),
    )
    return whole[order]


def kept(x_nm: list[float], score: list[float], kind: list[str]) -> list[float]:
    chosen = candidates(x_nm, score, kind)
    return sorted((chosen[~overlapping_motors(chosen)].centre_zyx[:, 2] * NM).round(3).tolist())


def test_a_motor_beside_a_certain_t3ss_is_part_of_it() -> None:
    motor, t3ss = FLAGELLAR_MOTOR, T3SS
    assert kept([0, 20], [0.999, 0.95], [motor, t3ss]) == [20]
    # Not beside one that may be part of the motor, nor where both have room.
    assert kept([0, 20], [0.999, 0.6], [motor, t3ss]) == [0, 20]
    assert kept([0, 31], [0.999, 0.95], [motor, t3ss]) == [0, 31]


def test_of_two_motors_that_overlap_the_better_one_is_kept() -> None:
    motor = FLAGELLAR_MOTOR
    assert kept([0, 20, 40], [0.7, 0.9, 0.8], [motor] * 3) == [20]
    assert kept([0, 20, 40], [0.9, 0.7, 0.8], [motor] * 3) == [0, 40]
    # Another kind, such as one of a verifier of one's own, may stand anywhere.
    assert kept([0, 20, 40], [0.9, 0.7, 0.8], [motor, "ribosome", T3SS]) == [0, 20, 40]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 300).map(lambda x: round(x, 2)),
            st.floats(0.01, 0.99),
            st.sampled_from([T3SS, FLAGELLAR_MOTOR, "ribosome"]),
        ),
        max_size=25,
    )
)
def test_reported_motors_have_room_and_others_stay(drawn: list[tuple[float, float, str]]) -> None:
    every = candidates(
        [x for x, _, _ in drawn], [score for _, score, _ in drawn], [kind for *_, kind in drawn]
    )
    dropped = overlapping_motors(every)
    assert set(every.kind[dropped]) <= {FLAGELLAR_MOTOR}
    left = every[~dropped]
    x = left.centre_zyx[:, 2] * NM
    near = np.abs(x[:, None] - x) < MIN_MOTOR_DISTANCE_NM - 1e-3
    motor = left.kind == FLAGELLAR_MOTOR
    certain = (left.kind == T3SS) & (left.score >= CERTAIN_T3SS)
    np.fill_diagonal(near, False)
    assert not near[np.ix_(motor, motor | certain)].any()
    # What is dropped overlaps with something better that stays.
    x_dropped = every.centre_zyx[dropped, 2] * NM
    close = np.abs(x_dropped[:, None] - x) < MIN_MOTOR_DISTANCE_NM + 1e-3
    better = left.score >= every.score[dropped][:, None]
    assert (close & (certain | (motor & better))).any(axis=1).all()
