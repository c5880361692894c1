"""The controller against the definition: brute force over all arrivals, and what a reader sees."""

from dataclasses import replace
from statistics import NormalDist

import pytest
from hypothesis import given, settings
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


@st.composite
def uncertain(draw: st.DrawFn) -> list[Arrivals]:
    """Forecasts whose instants are not sure."""
    spread = st.floats(0, 0.5)
    return [
        replace(piece, at_sd_s=draw(spread), step_sd_s=draw(spread)) for piece in draw(forecasts())
    ]


@settings(derandomize=True)
@given(uncertain(), st.floats(0.01, 0.4), st.booleans())
def test_a_reserve_costs_a_tenth_or_what_the_reader_has_had_already(
    pieces: list[Arrivals], pace_s: float, helped: bool
) -> None:
    first = pieces[0].first
    controller, shown_s, widest_s = SpeedController(pace_s), pieces[0].at_s, 0.0
    for position in range(first, pieces[-1].last):
        sure_s = max(pace_s, steepest_slope_s(position, shown_s, pieces))
        gap_s = controller.next_gap_s(position, shown_s, pieces, helped=helped)
        most_s = max(sure_s if helped else 1.1 * sure_s, widest_s)
        assert sure_s - 1e-12 <= gap_s <= most_s + 1e-12
        widest_s, shown_s = max(widest_s, gap_s), shown_s + gap_s


@settings(derandomize=True)
@given(forecasts(), st.floats(0.01, 0.4), st.floats(0, 1e-6))
def test_a_little_uncertainty_changes_a_gap_little(
    pieces: list[Arrivals], pace_s: float, little_s: float
) -> None:
    unsure = [replace(piece, at_sd_s=little_s, step_sd_s=little_s) for piece in pieces]
    first = pieces[0].first
    if pieces[-1].last == first:
        return
    sure_s = SpeedController(pace_s).next_gap_s(first, pieces[0].at_s, pieces)
    gap_s = SpeedController(pace_s).next_gap_s(first, pieces[0].at_s, unsure)
    assert gap_s == pytest.approx(sure_s, abs=1e-4)


@settings(derandomize=True)
@given(uncertain(), st.floats(0.01, 0.4), st.integers(1, 20), st.floats(0, 1))
def test_what_the_pace_covers_in_any_case_is_shown_at_the_pace(
    pieces: list[Arrivals], pace_s: float, behind: int, share: float
) -> None:
    # The short way, for an easy forecast, gives what the long way would.
    position, shown_s = pieces[0].first - behind, pieces[0].at_s - share * behind * pace_s
    gap_s = SpeedController(pace_s).next_gap_s(position, shown_s, pieces)
    ends = range(pieces[0].first, pieces[-1].last + 1)
    of = {i: p for p in pieces for i in range(p.first, p.last + 1)}
    most = NormalDist().inv_cdf(1 - 1 / 512)
    latest = max(
        (of[i].available_s(i) + most * of[i].spread_s(i) - shown_s) / (i - position) for i in ends
    )
    if latest <= pace_s:
        assert gap_s == pace_s


@settings(derandomize=True)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(0.02, 0.4))
def test_a_clock_that_jumps_makes_no_burst_and_no_stall(
    jumps_s: list[float], pace_s: float
) -> None:
    # Everything is there. After a jump either way the next gap is the pace, from what the clock
    # says now.
    controller, counted_s, now_s = SpeedController(pace_s), 100.0, 100.0
    everything = [Arrivals(0, 100, 0.0, 0.0, 0.1, 0.01)]
    for n, jump_s in enumerate(jumps_s):
        gap_s = controller.next_gap_s(n, counted_s, everything)
        assert gap_s == pace_s
        due_s = counted_s + gap_s
        now_s = due_s + jump_s
        counted_s = controller.counted_s(due_s, now_s)
        assert counted_s in (due_s, now_s)
        assert abs(counted_s - now_s) <= 0.002


def test_a_far_seam_that_is_not_sure_gets_a_reserve_early() -> None:
    # Position 20 comes at 1 s, give or take 0.2 s: its quantile 1 - 1 / 20 is at 1.33 s, of which
    # a tenth of the gap is paid.
    forecast = [Arrivals(1, 19, 0.0, 0.0), Arrivals(20, 20, 1.0, 0.0, at_sd_s=0.2)]
    assert SpeedController(0.05).next_gap_s(0, 0.0, forecast) == pytest.approx(0.055)
    assert SpeedController(0.05).next_gap_s(0, 0.0, forecast, helped=True) == pytest.approx(0.05)
    # The very next token is not waited for longer than it is expected to take.
    assert SpeedController(0.05).next_gap_s(19, 0.97, forecast) == pytest.approx(0.05)
