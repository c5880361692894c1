"""Which option each group of requests gets, and how much of the group is admitted: exactly.

A group's requests all get one option. With z the admitted share of group j under option o,

    most of     sum over j, o of  value[j][o] z[j][o]
    such that   sum over j, o of  load[j][o][r] z[j][o] <= limit[r]     for each resource r
                sum over o of z[j][o] <= 1,  at most one z[j][o] above 0  for each group j

Without "at most one" it is a linear program, whose optimum mixes options in no more groups than
there are resources. Branch and bound does the rest: a group that is mixed gets either the options
below the mix, or those above. Every node's linear program bounds what lies below it, so the result
says how far from the optimum it can be at most.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pd_bench.fleet_planning.simplex import maximise

__all__ = ["Allocation", "Choice", "Group", "allocate", "undominated"]

_SHARE = 1e-7
_GAP = 1e-6
_MOST_NODES = 2_000


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a group, if the whole group is admitted with it.

    Attributes:
        value: what it is worth.
        loads: what it takes of each resource.
    """

    value: float
    loads: tuple[float, ...]


Group = Sequence[Choice]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A solution and how good it is.

    Attributes:
        value: its worth.
        bound: no solution is worth more.
        chosen: each group's option; None: none of it is admitted.
        admitted: each group's admitted share.
        loads: what is taken of each resource.
    """

    value: float
    bound: float
    chosen: tuple[int | None, ...]
    admitted: tuple[float, ...]
    loads: tuple[float, ...]

    @property
    def gap(self) -> float:
        """The share of the bound that may be missing."""
        return max(self.bound - self.value, 0.0) / self.bound if self.bound > 0 else 0.0


def undominated(group: Group) -> list[int]:
    """Return the options for which no other is worth as much and takes no more, by value."""
    kept: list[int] = []
    for index in sorted(range(len(group)), key=lambda i: (-group[i].value, group[i].loads)):
        choice = group[index]
        beaten = any(
            all(a <= b for a, b in zip(group[k].loads, choice.loads, strict=True)) for k in kept
        )
        if not beaten:
            kept.append(index)
    return kept[::-1]


def allocate(groups: Sequence[Group], limits: Sequence[float], *, floor: float = 0.0) -> Allocation:
    """Return the best allocation, or one that is at most `gap` below it.

    Args:
        groups: the groups' options.
        limits: of each resource.
        floor: a worth that is known to be reached elsewhere: what cannot beat it is not sought.
    """
    if (best := _unbounded(groups, limits)) is not None:
        return best
    ends = itertools.count()  # so that no two entries of the heap compare beyond it
    options = [undominated(group) for group in groups]
    root = _Node.of(groups, options, limits)
    best = root.rounded(groups, limits)
    open_nodes = [(-root.value, next(ends), root)]
    for _ in range(_MOST_NODES):
        if not open_nodes:
            break
        bound = -open_nodes[0][0]
        if bound <= max(best.value, floor) * (1 + _GAP):
            break
        node = heapq.heappop(open_nodes)[2]
        for options in node.branches(groups):
            child = _Node.of(groups, options, limits)
            found = child.rounded(groups, limits)
            best = max(best, found, key=lambda a: a.value)
            if child.value > best.value * (1 + _GAP):
                heapq.heappush(open_nodes, (-child.value, next(ends), child))
    bound = max([best.value, *(-entry[0] for entry in open_nodes)])
    return Allocation(best.value, bound, best.chosen, best.admitted, best.loads)


def _unbounded(groups: Sequence[Group], limits: Sequence[float]) -> Allocation | None:
    """Return every group's best option, if all fit."""
    best = [max(range(len(g)), key=lambda o: (g[o].value, -sum(g[o].loads))) for g in groups]
    chosen = [g[o] for g, o in zip(groups, best, strict=True)]
    loads = tuple(sum(c.loads[r] for c in chosen if c.value > 0) for r in range(len(limits)))
    if any(load > limit for load, limit in zip(loads, limits, strict=True)):
        return None
    value = sum(max(c.value, 0.0) for c in chosen)
    options = tuple(o if c.value > 0 else None for o, c in zip(best, chosen, strict=True))
    admitted = tuple(1.0 if c.value > 0 else 0.0 for c in chosen)
    return Allocation(value, value, options, admitted, loads)


@dataclass(frozen=True, slots=True)
class _Node:
    """A part of the search: each group with some of its options, and its relaxed optimum."""

    options: list[list[int]]
    shares: list[list[float]]
    value: float

    @classmethod
    def of(
        cls, groups: Sequence[Group], options: list[list[int]], limits: Sequence[float]
    ) -> "_Node":
        columns = [(j, o) for j, allowed in enumerate(options) for o in allowed]
        shares: list[list[float]] = [[0.0] * len(allowed) for allowed in options]
        if not columns:
            return cls(options, shares, 0.0)
        values = np.array([groups[j][o].value for j, o in columns])
        matrix = np.zeros((len(limits) + len(groups), len(columns)))
        for at, (j, o) in enumerate(columns):
            matrix[: len(limits), at] = groups[j][o].loads
            matrix[len(limits) + j, at] = 1.0
        solved = maximise(values, matrix, np.array([*limits, *[1.0] * len(groups)]))
        for (j, o), share in zip(columns, solved.z, strict=True):
            shares[j][options[j].index(o)] = float(share)
        return cls(options, shares, solved.value)

    def rounded(self, groups: Sequence[Group], limits: Sequence[float]) -> Allocation:
        """Return a solution near the relaxed one: the largest share's option for each group."""
        chosen = [
            allowed[int(np.argmax(shares))] if allowed and max(shares) > _SHARE else None
            for allowed, shares in zip(self.options, self.shares, strict=True)
        ]
        if any(sum(share > _SHARE for share in shares) > 1 for shares in self.shares):
            only = [[] if o is None else [o] for o in chosen]
            return _Node.of(groups, only, limits).rounded(groups, limits)
        admitted = tuple(min(max(shares, default=0.0), 1.0) for shares in self.shares)
        loads = [0.0] * len(limits)
        value = 0.0
        for j, (option, share) in enumerate(zip(chosen, admitted, strict=True)):
            if option is not None:
                value += share * groups[j][option].value
                for r, load in enumerate(groups[j][option].loads):
                    loads[r] += share * load
        return Allocation(value, value, tuple(chosen), admitted, tuple(loads))

    def branches(self, groups: Sequence[Group]) -> list[list[list[int]]]:
        """Return the two halves of the options of the group that is mixed most evenly."""
        mixed = [(sorted(shares)[-2], j) for j, shares in enumerate(self.shares) if len(shares) > 1]
        share, at = max(mixed, default=(0.0, 0))
        if share <= _SHARE:
            return []
        allowed = self.options[at]
        first = next(i for i, s in enumerate(self.shares[at]) if s > _SHARE)
        halves = (allowed[: first + 1], allowed[first + 1 :])
        return [[half if j == at else o for j, o in enumerate(self.options)] for half in halves]
