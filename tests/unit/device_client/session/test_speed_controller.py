"""The controller against the definition: brute force over all arrivals, and what a reader sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_device_client.session.speed_controller import Arrivals, SpeedController, steepest_slope_s


@st.composite
def forecasts(draw: st.DrawFn) -> list[Arrivals]:
    """Cloud tail, a jump, the device's line: consecutive pieces of rising instants."""
    pieces, first, at_s = [], draw(st.integers(0, 5)), draw(st.floats(0, 3))
    for _ in range(draw(st.integers(1, 4))):
        last = first + draw(st.integers(0, 30))
        step = draw(st.floats(0, 0.5))
        pieces.append(Arrivals(first, last, at_s, step))
        at_s = pieces[-1].available_s(last) + draw(st.floats(0, 3))
        first = last + 1
    return pieces


def _arrivals(pieces: list[Arrivals]) -> dict[int, float]:
    return {i: p.available_s(i) for p in pieces for i in range(p.first, p.last + 1)}


@given(forecasts(), st.integers(0, 60), st.floats(0, 10))
def test_corners_suffice(pieces: list[Arrivals], position: int, shown_s: float) -> None:
    slopes = [
        (at - shown_s) / (i - position) for i, at in _arrivals(pieces).items() if i > position
    ]
    expected = max([*slopes, 0.0])
    assert steepest_slope_s(position, shown_s, pieces) == pytest.approx(expected)


@given(forecasts(), st.floats(0.01, 0.4))
def test_when_the_forecast_holds_it_never_stalls_and_no_gap_exceeds_the_best_possible(
    pieces: list[Arrivals], pace_s: float
) -> None:
    arrivals = _arrivals(pieces)
    first = min(arrivals)
    shown_s = arrivals[first]
    best = max(pace_s, steepest_slope_s(first, shown_s, pieces))
    controller = SpeedController(pace_s)
    for position in range(first + 1, max(arrivals) + 1):
        gap = controller.next_gap_s(position - 1, shown_s, pieces)
        shown_s += gap
        assert shown_s >= arrivals[position] - 1e-9, "shown before it was there: a stall"
        assert pace_s <= gap <= best + 1e-9


@given(st.floats(0.01, 0.4), st.floats(0.5, 5))
def test_no_burst_after_lateness(pace_s: float, late_s: float) -> None:
    # Everything is there, but token 3 was shown late: the next gap is the pace, not less.
    everything = [Arrivals(0, 50, 0.0, 0.0)]
    assert SpeedController(pace_s).next_gap_s(3, late_s, everything) == pace_s


def test_lateness_ahead_is_spread_over_the_tokens_at_hand() -> None:
    # Ten tokens are there, the eleventh comes at 2 s: ten gaps of 0.2 s, not a stall at the end.
    forecast = [Arrivals(0, 9, 0.0, 0.0), Arrivals(10, 10, 2.0, 0.0)]
    assert SpeedController(0.1).next_gap_s(0, 0.0, forecast) == pytest.approx(0.2)


def test_a_slow_device_line_is_felt_from_the_start() -> None:
    # D > tau: position 100 comes at 1 + 90 * 0.05, so the pace is stretched evenly.
    forecast = [Arrivals(1, 9, 0.0, 0.0), Arrivals(10, 100, 1.0, 0.05)]
    assert SpeedController(0.02).next_gap_s(0, 0.0, forecast) == pytest.approx(0.1)


@given(st.floats(0.02, 0.5), st.lists(st.floats(0.0, 0.002), min_size=1, max_size=50))
def test_late_wake_ups_within_the_grain_do_not_add_up(pace_s: float, late: list[float]) -> None:
    controller = SpeedController(pace_s)
    counted_s = 5.0
    for n, late_s in enumerate(late):
        due_s = counted_s + controller.next_gap_s(n, counted_s, ())
        counted_s = controller.counted_s(due_s, due_s + late_s * 0.999)
    assert counted_s == pytest.approx(5.0 + len(late) * pace_s)


@given(st.floats(0.0, 0.5), st.floats(0.0021, 9.0))
def test_real_lateness_is_never_made_up(pace_s: float, late_s: float) -> None:
    controller = SpeedController(pace_s)
    assert controller.counted_s(7.0, 7.0 + late_s) == 7.0 + late_s
    assert controller.counted_s(None, 7.0) == 7.0


def test_a_short_pace_forgives_a_tenth_of_itself() -> None:
    controller = SpeedController(0.005)
    assert controller.counted_s(7.0, 7.0004) == 7.0
    assert controller.counted_s(7.0, 7.0006) == 7.0006
    assert controller.counted_s(7.0, 6.9) == 6.9  # shown before its time
