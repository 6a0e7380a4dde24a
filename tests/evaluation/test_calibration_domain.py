"""Distance of a tomogram from those of the calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t3ssfast.errors import InputError, ModelError
from t3ssfast.evaluation.calibration_domain import CalibrationDomain

NAMES = ("image_a", "image_b", "confidence_c")


def described(values: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(NAMES, row.tolist(), strict=True)) for row in values]


def at_home(rng: np.random.Generator, n: int) -> np.ndarray:
    mixed = rng.normal(size=(n, 3))
    mixed[:, 1] += 2 * mixed[:, 0]
    return mixed * [1.0, 10.0, 0.1] + [0.0, 50.0, -1.0]


def test_home_is_near_and_elsewhere_is_far() -> None:
    rng = np.random.default_rng(0)
    domain = CalibrationDomain.fit(described(at_home(rng, 100)))
    assert domain is not None
    new = [domain.distance(one) or np.inf for one in described(at_home(rng, 400))]
    assert np.mean(np.array(new) > 1) < 0.12
    away = domain.distance({"image_a": 0.0, "image_b": 50.0, "confidence_c": 0.0})
    assert away is not None
    assert away > 2


def test_image_of_every_calibration_tomogram_is_within_the_limit() -> None:
    values = at_home(np.random.default_rng(3), 72)[:, :2]
    images = [dict(zip(NAMES, row.tolist(), strict=False)) for row in values]
    domain = CalibrationDomain.fit(images)
    assert domain is not None
    distances = [domain.distance(image) or np.inf for image in images]
    assert max(distances) <= 1
    # The farthest one, left out of the fit, is the limit; with it, the fit is wider.
    assert max(distances) > 0.8


def test_units_do_not_matter() -> None:
    values = at_home(np.random.default_rng(1), 40)
    first, other = (CalibrationDomain.fit(described(v)) for v in (values, values * 1000.0))
    assert first is not None
    assert other is not None
    assert first.distance(described(values)[3]) == pytest.approx(
        other.distance(described(values * 1000.0)[3]), rel=1e-3
    )


def test_groups_are_compared_by_themselves() -> None:
    domain = CalibrationDomain.fit(described(at_home(np.random.default_rng(2), 20)))
    assert domain is not None
    whole = {"image_a": 0.0, "image_b": 50.0, "confidence_c": 0.0}
    # The part that is far away decides; a group without all of its statistics is left out.
    assert domain.distance(whole) == domain.distance({"confidence_c": 0.0})
    near = domain.distance({"image_a": 0.0, "image_b": 50.0})
    assert near is not None
    assert near < 1
    assert domain.distance({"image_a": 1.0}) is None
    assert domain.distance({"image_a": 1.0, "image_b": float("nan")}) is None


def test_few_tomograms_have_no_domain() -> None:
    values = at_home(np.random.default_rng(3), 7)
    assert CalibrationDomain.fit(described(values)) is None
    values = at_home(np.random.default_rng(3), 20)
    values[4, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        CalibrationDomain.fit(described(values))


def test_round_trip() -> None:
    domain = CalibrationDomain.fit(described(at_home(np.random.default_rng(4), 20)))
    assert domain is not None
    entries = json.loads(json.dumps(domain.to_dict()))
    assert CalibrationDomain.from_dict(entries) == domain
    for change in ({"names": ["a"]}, {"mean": None}, {"precision": [[1.0]] * 2}, {"limit": "far"}):
        with pytest.raises(ModelError, match="calibrate the model again"):
            CalibrationDomain.from_dict({"groups": [entries["groups"][1] | change]})


def test_confidence_counts_in_one_direction() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=500)
    rows = [
        {
            "confidence_membrane_doubt": 0.5 + 0.1 * (c + a),
            "confidence_between": 0.3 + 0.2 * (c + b),
            "confidence_upper_log_odds": 5 - c,
        }
        for c, a, b in zip(common, rng.normal(size=500), rng.normal(size=500), strict=True)
    ]
    domain = CalibrationDomain.fit(rows[:200])
    assert domain is not None
    distance = np.array([domain.distance(row) for row in rows[200:]], np.float64)
    # Fewer than half are more certain than the mean in both ways. One in twenty is beyond the limit in one.
    assert 0.3 < np.mean(distance == 0) < 0.5
    assert 0.01 < np.mean(distance > 1) < 0.08
    doubtful = {
        "confidence_membrane_doubt": 0.9,
        "confidence_between": 0.9,
        "confidence_upper_log_odds": 2.0,
    }
    sure = {
        "confidence_membrane_doubt": 0.1,
        "confidence_between": 0.0,
        "confidence_upper_log_odds": 9.0,
    }
    assert (domain.distance(doubtful) or 0) > 1.5
    assert domain.distance(sure) == 0
    # Few candidates, whose scores tell nothing, and a membrane that is seen badly.
    mean = dict(zip(domain.groups[0].names, domain.groups[0].mean, strict=True))
    assert (domain.distance(mean | {"confidence_membrane_doubt": 0.9}) or 0) > 1
    assert (domain.distance(mean | {"confidence_between": 0.6}) or 0) < 1
    # The limit that earlier versions stored for such a group is of another kind.
    entries = json.loads(json.dumps(domain.to_dict()))
    entries["groups"][0]["limit"] = 100.0
    assert CalibrationDomain.from_dict(entries).distance(doubtful) == domain.distance(doubtful)
