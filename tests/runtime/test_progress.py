"""Progress reported to a function."""

from __future__ import annotations

from t3ssfast.runtime.progress import Stages


def test_a_listener_hears_every_step() -> None:
    heard: list[tuple[str, int, int]] = []
    with Stages(lambda title, done, total: heard.append((title, done, total))) as stages:
        with stages.bar("segment", 4) as advance:
            advance(1)
            advance(3)
            # A slab that is repeated goes back.
            advance(-2)
            advance(2)
        with stages.bar("classify", 2) as advance:
            advance(2)
    assert heard == [
        ("segment", 1, 4),
        ("segment", 4, 4),
        ("segment", 2, 4),
        ("segment", 4, 4),
        ("classify", 2, 2),
    ]


def test_without_a_listener_nothing_is_printed(capfd) -> None:
    for visible in (True, False):
        with Stages(visible) as stages, stages.bar("segment", 2) as advance:
            advance(2)
    assert capfd.readouterr() == ("", "")
