"""How many requests a second a cloud carries under a scheme, and the gain of a smaller cloud share.

The arrival rate is raised by overlaying shifted copies of the trace until the promise is no longer
kept for the target share of requests; bisection then finds the highest rate that keeps it. Each
rate runs for a warm-up and then ten residence times.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.schemes import Scheme
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord
from pd_bench.results.series import CapacityCurve, CapacityPoint
from pd_bench.simulation.fleet import SimulatedFleet, workload_of
from pd_bench.simulation.kept_promise import KeptPromise
from pd_bench.simulation.overlay import Overlay
from pd_bench.simulation.settings import SimulationSettings
from pd_device_client.contract.outcome import Outcome

__all__ = ["Capacity", "TriedRate", "find_capacity"]

_WARM_UP_RESIDENCES = 1.0
_RESIDENCES = 10.0
_COOL_DOWN_RESIDENCES = 0.5  # arrivals go on while the last measured requests are answered
_PRECISION = 0.05
_MOST_TRIES = 16
_MOST_GROWTH = 32.0
_LEAST_REQUESTS = 200  # measured per rate, so that a share of 1 % is meaningful


@dataclass(slots=True)
class Capacity:
    """The capacity of one scheme.

    Attributes:
        curve: the rates tried, and the highest good one; a capacity of 0, with the reason, if none
            is good; not bounded if the devices keep the promise alone.
        cloud_tokens: tokens the cloud generated per request at that rate; 0 without one.
        busy_s: the engine's working time per request at that rate; 0 without one.
    """

    curve: CapacityCurve
    cloud_tokens: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class TriedRate:
    """One rate of a search, for the progress display.

    Attributes:
        scheme: the scheme under test.
        rate_per_s: requests a second.
        measured: requests that had ended.
        broken: how many of them broke the promise.
        left_early: the rate was abandoned because too many were broken already.
        good: whether the kept share is enough.
    """

    scheme: str
    rate_per_s: float
    measured: int
    broken: int
    left_early: bool
    good: bool


@dataclass(slots=True)
class _Run:
    """One rate."""

    rate_per_s: float
    kept: float = 0.0
    at_most: bool = False
    measured: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    cloud_tokens: float = 0.0
    busy_s: float = 0.0


class _Overloaded(Exception):
    """Too many promises are already broken for the target to be reached."""


def find_capacity(
    settings: SimulationSettings,
    scheme: Scheme,
    overlay: Overlay,
    promise: KeptPromise,
    *,
    regime: str,
    mean_output_tokens: float,
    guess_per_s: float,
    progress: Callable[[TriedRate], None],
) -> Capacity:
    """Find the highest arrival rate that keeps the promise.

    A rate is abandoned as soon as more requests have broken the promise than may; its share in the
    curve is then an upper bound.

    Args:
        settings: devices, link, cloud and pace.
        scheme: how requests are carried.
        overlay: the traffic.
        promise: the promise to keep.
        regime: what bounds the cloud, in words.
        mean_output_tokens: mean answer length of the trace, as cut.
        guess_per_s: the rate to begin with.
        progress: called with every rate tried.
    """
    search = _Search(settings, scheme, overlay, promise, mean_output_tokens, progress)
    best = search.best(guess_per_s)
    points = sorted(search.points, key=lambda run: run.rate_per_s)
    curve = CapacityCurve(
        regime=regime,
        capacity_per_s=0.0 if best is None else best.rate_per_s,
        target=promise.target,
        points=tuple(
            CapacityPoint(rate_per_s=p.rate_per_s, kept=p.kept, at_most=p.at_most) for p in points
        ),
        bounded=best is None or points[-1] is not best,
        none_because=_why_none(points[0]) if best is None else None,
    )
    if best is None:
        return Capacity(curve, 0.0, 0.0)
    return Capacity(curve, best.cloud_tokens, best.busy_s)


def _why_none(lowest: _Run) -> str:
    """Return, in words, what breaks the promise even at the lowest rate."""
    first = "the first " if lowest.at_most else ""
    causes = ", ".join(f"{cause} ({count})" for cause, count in lowest.broken.items())
    return (
        f"not even {lowest.rate_per_s:.3g} requests/s keep the promise: of {first}"
        f"{lowest.measured} requests {lowest.broken.total()} break it, by {causes}"
    )


@dataclass(slots=True)
class _Search:
    settings: SimulationSettings
    scheme: Scheme
    overlay: Overlay
    promise: KeptPromise
    mean_output_tokens: float
    progress: Callable[[TriedRate], None]
    points: list[_Run] = field(default_factory=list)

    def best(self, guess_per_s: float) -> _Run | None:
        """Bracket the capacity by factors of two, then bisect the bracket.

        Returns:
            The highest good rate; None when none is.
        """
        good: _Run | None = None
        bad: _Run | None = None
        rate = guess_per_s
        while len(self.points) < _MOST_TRIES:
            run = self._run(rate)
            if run.kept >= self.promise.target:
                good = run
            else:
                bad = run
            if good is not None and bad is not None:
                if bad.rate_per_s / good.rate_per_s <= 1 + _PRECISION:
                    return good
                rate = (good.rate_per_s * bad.rate_per_s) ** 0.5
            else:
                rate = rate * 2 if bad is None else rate / 2
                if not 1 / _MOST_GROWTH <= rate / guess_per_s <= _MOST_GROWTH:
                    break
        return good

    def _run(self, rate_per_s: float) -> _Run:
        residence_s = max(self.mean_output_tokens * self.settings.pace_s, 1.0)
        begin_s = _WARM_UP_RESIDENCES * residence_s
        end_s = begin_s + max(_RESIDENCES * residence_s, _LEAST_REQUESTS / rate_per_s)
        run = _Run(rate_per_s)
        workload = workload_of(self.settings)

        def rows() -> Iterator[Work]:
            traffic = self.overlay.at_rate(rate_per_s, end_s + _COOL_DOWN_RESIDENCES * residence_s)
            for index, row in enumerate(traffic):
                yield workload.work(index, row)

        # Counting makes no prompts; it only reads the arrivals.
        arrivals = self.overlay.at_rate(rate_per_s, end_s)
        expected = sum(row.arrival_s >= begin_s for row in arrivals)
        may_break = (1 - self.promise.target) * expected

        def ended(record: RequestRecord, outcome: Outcome) -> None:
            if not begin_s <= record.arrival_s < end_s:
                return
            run.measured += 1
            if cause := self.promise.broken_by(record):
                run.broken[cause] += 1
            run.cloud_tokens += record.cloud_tokens_generated
            if run.broken.total() > may_break:
                raise _Overloaded

        async def main() -> None:
            fleet = SimulatedFleet(self.settings, self.scheme, workload, ended)
            await fleet.run(rows())
            run.busy_s = fleet.totals.busy_s

        try:
            run_virtual(main())
        except _Overloaded:
            run.at_most = True
            kept = 1 - run.broken.total() / max(expected, 1)
            run.kept = min(kept, self.promise.target - 1e-6)
        else:
            run.kept = 1 - run.broken.total() / max(run.measured, 1)
            run.cloud_tokens /= max(run.measured, 1)
            run.busy_s /= rate_per_s * (end_s + _COOL_DOWN_RESIDENCES * residence_s)
        self.points.append(run)
        good = run.kept >= self.promise.target
        self.progress(
            TriedRate(
                self.scheme.name, rate_per_s, run.measured, run.broken.total(), run.at_most, good
            )
        )
        return run
