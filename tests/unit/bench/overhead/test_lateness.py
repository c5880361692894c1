"""How late tokens are against their pace."""

import pytest

from pd_bench.overhead.lateness import lateness_s


def came(late_s: list[float], pace_s: float = 0.02) -> list[float]:
    return [5.0 + i * pace_s + late for i, late in enumerate(late_s)]


def test_punctual_tokens_are_not_late() -> None:
    assert lateness_s(came([0.0] * 20), 0.02) == pytest.approx([0.0] * 12)
    assert lateness_s(came([0.0] * 8), 0.02) == []


def test_a_late_token_is_late_and_the_next_is_not_early() -> None:
    late = [0.0] * 8 + [0.003, 0.0, 0.0]
    assert lateness_s(came(late), 0.02) == pytest.approx([0.003, 0.0, 0.0])


def test_a_stream_that_shifts_once_is_late_only_for_a_while() -> None:
    late = [0.0] * 9 + [0.003] * 12
    assert lateness_s(came(late), 0.02) == pytest.approx([0.0] + [0.003] * 8 + [0.0] * 4)


def test_a_stream_that_falls_behind_is_late_by_what_it_has_lost() -> None:
    late = [i * 0.001 for i in range(12)]
    assert lateness_s(came(late), 0.02) == pytest.approx([0.008] * 4)
