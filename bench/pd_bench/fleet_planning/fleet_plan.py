"""The plan of a fleet: k, keep ratio and admission for each class and range of prompt lengths.

The first token's time grows with the load, and what can be promised falls with it. So the search is
in two parts. Outside, over load levels: a level bounds what may be taken of the cloud, and makes
every request as slow as a cloud at that bound would. Inside, the best allocation at the level,
which is exact (`allocation`). The waits at a level depend on what the admitted requests hold, so
each level is solved until the two agree. As everything is faster below a level, a plan keeps its
promise at any load up to the level's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pd_bench.fleet_planning.allocation import Allocation, Choice, allocate
from pd_bench.fleet_planning.device_class import DeviceClass
from pd_bench.fleet_planning.load_level import LoadLevel, Traffic, Waits
from pd_bench.fleet_planning.options import (
    RESOURCES,
    FleetPromise,
    Option,
    RequestGroup,
    groups_of,
)
from pd_bench.simulation.cloud.cloud_profile import CloudProfile

__all__ = ["FleetPlan", "Problem", "most_carried", "plan_fleet", "problem_at"]

_WORK = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.94)
_SLOTS = (0.003, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)
_LEAST_HELD = 0.1  # slots
_ROUNDS = 6  # until waits and traffic agree
_AGREE = 1.02
_THRIFT = 1e-4  # worth of the whole cloud beside that of all requests: of equal plans the cheapest
_PRECISION = 0.02  # of the most that is carried
_MOST_RATE = 1e6


@dataclass(frozen=True, slots=True)
class Problem:
    """The allocation at one load level: what is solved, and what HiGHS can solve again.

    Attributes:
        choices: of each group, one for each of its options.
        limits: of the resources, in seconds per second.
        kept: of each group and option the share of its requests that keep the promise.
    """

    choices: list[list[Choice]]
    limits: tuple[float, ...]
    kept: list[list[float]]

    def most_served(self, groups: Sequence[RequestGroup]) -> float:
        """Return a bound on the share of the arrivals that can be served within the promise."""
        return sum(g.share * max(kept) for g, kept in zip(groups, self.kept, strict=True))


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A plan.

    Attributes:
        groups: what the plan is for.
        options: the option of each group; None: none of its requests is admitted.
        admitted: the share of each group that is.
        kept: the share of the admitted of each group whose promise is kept.
        level: the load it is planned for.
        waits: how long requests wait at that load.
        rate_per_s: the arrivals it is for.
        problem: what was solved.
        allocation: its solution.
    """

    groups: Sequence[RequestGroup]
    options: tuple[Option | None, ...]
    admitted: tuple[float, ...]
    kept: tuple[float, ...]
    level: LoadLevel
    waits: Waits
    rate_per_s: float
    problem: Problem
    allocation: Allocation

    @property
    def served(self) -> float:
        """The share of all arrivals that is served within the promise."""
        parts = zip(self.groups, self.admitted, self.kept, strict=True)
        return sum(group.share * admitted * kept for group, admitted, kept in parts)

    @property
    def gap_to_optimum(self) -> float:
        """The share of the allocation's worth that may be missing at this level."""
        return self.allocation.gap

    @property
    def used(self) -> dict[str, float]:
        """The share that is taken of each resource at the planned rate."""
        whole = (float(self.level.cloud.max_num_seqs), 1.0, 1.0)
        return {
            name: load / most
            for name, load, most in zip(RESOURCES, self.allocation.loads, whole, strict=True)
        }


def plan_fleet(
    classes: tuple[DeviceClass, ...],
    cloud: CloudProfile,
    promise: FleetPromise,
    rate_per_s: float,
) -> FleetPlan:
    """Return the plan that serves the most requests within the promise at this rate."""
    groups = groups_of(classes, cloud, promise)
    best: FleetPlan | None = None
    for plan in _plans(groups, rate_per_s, _levels(cloud)):
        if best is None or plan.allocation.value > best.allocation.value:
            best = plan
    assert best is not None, "the lowest level always has a plan"
    return best


def most_carried(
    classes: tuple[DeviceClass, ...], cloud: CloudProfile, promise: FleetPromise
) -> FleetPlan | None:
    """Return the plan of the highest rate at which the target share is served.

    None: at no rate it is. The rate is _MOST_RATE if the devices need no cloud.
    """
    groups = groups_of(classes, cloud, promise)
    levels = list(_levels(cloud))
    good: FleetPlan | None = None
    least, most = 1e-3, _MOST_RATE
    if (good := _serving(groups, promise, least, levels)) is None:
        return None
    rate = float(cloud.max_num_seqs)
    while most / least > 1 + _PRECISION:
        plan = _serving(groups, promise, rate, levels)
        if plan is None:
            most = rate
        else:
            good, least = plan, rate
            levels.sort(key=lambda level: level != plan.level)  # the next rate's best is near
        rate = min(4 * rate, most) if most == _MOST_RATE else (least * most) ** 0.5
    return good


def _serving(
    groups: Sequence[RequestGroup],
    promise: FleetPromise,
    rate_per_s: float,
    levels: Iterable[LoadLevel],
) -> FleetPlan | None:
    """Return the first plan that serves the target share at this rate."""
    plans = _plans(groups, rate_per_s, levels, promise.target)
    return next((plan for plan in plans if plan.served >= promise.target), None)


def _levels(cloud: CloudProfile) -> Iterator[LoadLevel]:
    held = [slots for slots in _SLOTS if slots * cloud.max_num_seqs >= _LEAST_HELD]
    return (LoadLevel(cloud, work, slots) for work in _WORK for slots in held)


def _plans(
    groups: Sequence[RequestGroup],
    rate_per_s: float,
    levels: Iterable[LoadLevel],
    floor: float = 0.0,
) -> Iterator[FleetPlan]:
    """Yield a plan for each level at which waits and traffic agree."""
    for level in levels:
        plan = _plan_at(groups, rate_per_s, level, floor)
        if plan is not None:
            yield plan


def _plan_at(
    groups: Sequence[RequestGroup], rate_per_s: float, level: LoadLevel, floor: float
) -> FleetPlan | None:
    """Return the plan at a level; None: waits and traffic do not agree, or too little is served."""
    waits = Waits()
    for _ in range(_ROUNDS):
        problem = problem_at(groups, rate_per_s, level, waits)
        if problem.most_served(groups) < floor:
            return None
        found = allocate(problem.choices, problem.limits)
        needed = level.waits(_traffic(groups, found, level))
        if needed.mean_s <= waits.mean_s * _AGREE + 1e-6:
            return FleetPlan(
                groups,
                tuple(
                    None if o is None else group.options[o]
                    for group, o in zip(groups, found.chosen, strict=True)
                ),
                found.admitted,
                tuple(
                    0.0 if o is None else kept[o]
                    for kept, o in zip(problem.kept, found.chosen, strict=True)
                ),
                level,
                waits,
                rate_per_s,
                problem,
                found,
            )
        waits = needed
    return None


def problem_at(
    groups: Sequence[RequestGroup], rate_per_s: float, level: LoadLevel, waits: Waits
) -> Problem:
    """Return the allocation to solve at a level."""
    limits = (level.slots * level.cloud.max_num_seqs, 1.0, level.work)
    choices, kept = [], []
    for group in groups:
        loads = rate_per_s * group.share * group.loads(level)
        shares = group.kept(level, waits)
        thrift = _THRIFT * (loads / np.array(limits)).sum(axis=1)
        choices.append([
            Choice(float(worth), tuple(float(x) for x in row))
            for worth, row in zip(group.share * shares - thrift, loads, strict=True)
        ])  # fmt: skip
        kept.append([float(share) for share in shares])
    return Problem(choices, limits, kept)


def _traffic(groups: Sequence[RequestGroup], found: Allocation, level: LoadLevel) -> Traffic:
    """Return what the admitted requests hold."""
    weights, held_s, work_s = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for group, option, admitted in zip(groups, found.chosen, found.admitted, strict=True):
        if option is not None and found.loads:
            held = group.slot_s(level)[option]
            weights.append(np.full(len(held), group.share * admitted / len(held)))
            held_s.append(held)
            work_s.append(group.work_s[option])
    weight, held, work = (np.concatenate(parts) for parts in (weights, held_s, work_s))
    weight = np.where(held > 0, weight, 0.0)
    total = weight.sum()
    if total <= 0:
        return Traffic(1.0, 0.0, 0.0)
    mean = float((weight * held).sum() / total)
    variance = float((weight * held * held).sum() / total) - mean * mean
    work_mean = float((weight * work).sum())
    prefill_s = float((weight * work * work).sum()) / work_mean if work_mean > 0 else 0.0
    return Traffic(mean, max(variance, 0.0) ** 0.5 / mean, prefill_s)
