"""The allocation at one load level: against brute force, against HiGHS, and its own proof."""

import itertools
import random

import numpy as np
import pytest

from pd_bench.fleet_planning.allocation import Choice, allocate, undominated
from pd_bench.fleet_planning.fleet_plan import Problem
from pd_bench.fleet_planning.milp_check import milp_value
from pd_bench.fleet_planning.simplex import maximise

Groups = list[list[Choice]]


def _random_groups(seed: int, num_groups: int, num_options: int) -> tuple[Groups, list[float]]:
    drawn = random.Random(seed)
    groups = [
        [
            Choice(drawn.random() * drawn.choice((1, 3)), tuple(drawn.random() for _ in range(3)))
            for _ in range(drawn.randint(1, num_options))
        ]
        for _ in range(num_groups)
    ]
    return groups, [num_groups * drawn.uniform(0.05, 0.4) for _ in range(3)]


def _brute_force(groups: Groups, limits: list[float]) -> float:
    """Try every choice of options; the shares of one choice are at a corner of their polytope."""
    best = 0.0
    for chosen in itertools.product(*groups):
        n = len(chosen)
        values = np.array([c.value for c in chosen])
        rows = np.vstack([np.array([c.loads for c in chosen]).T, np.eye(n), -np.eye(n)])
        ends = np.array([*limits, *[1.0] * n, *[0.0] * n])
        for tight in itertools.combinations(range(len(rows)), n):
            corner, at = rows[list(tight)], ends[list(tight)]
            if abs(np.linalg.det(corner)) > 1e-9:
                shares = np.linalg.solve(corner, at)
                if (rows @ shares <= ends + 1e-9).all():
                    best = max(best, float(values @ shares))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_allocation_is_what_brute_force_finds(seed: int) -> None:
    groups, limits = _random_groups(seed, 3, 3)
    found = allocate(groups, limits)
    assert found.value == pytest.approx(_brute_force(groups, limits), rel=1e-5)
    assert found.bound >= found.value
    assert found.gap < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_allocation_is_what_highs_finds(seed: int) -> None:
    pytest.importorskip("scipy", reason="HiGHS comes with scipy")
    groups, limits = _random_groups(100 + seed, 12, 6)
    best = milp_value(Problem(groups, tuple(limits), []))
    found = allocate(groups, limits)
    assert found.value == pytest.approx(best, rel=0.01)
    assert found.bound >= best * (1 - 1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_an_allocation_keeps_every_limit_and_is_worth_what_it_says(seed: int) -> None:
    groups, limits = _random_groups(200 + seed, 15, 8)
    found = allocate(groups, limits)
    loads, value = [0.0] * 3, 0.0
    for group, option, share in zip(groups, found.chosen, found.admitted, strict=True):
        assert 0 <= share <= 1
        if option is not None:
            value += share * group[option].value
            loads = [x + share * y for x, y in zip(loads, group[option].loads, strict=True)]
    assert value == pytest.approx(found.value)
    assert loads == pytest.approx(found.loads)
    assert all(load <= limit * (1 + 1e-6) for load, limit in zip(loads, limits, strict=True))
    assert found.gap < 0.01


@pytest.mark.parametrize("seed", range(20))
def test_a_linear_program_comes_with_its_proof(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    matrix = np.vstack([drawn.random((4, 9)), np.eye(9)])
    values, limits = drawn.normal(size=9), np.concatenate([drawn.random(4), np.ones(9)])
    found = maximise(values, matrix, limits)
    assert (matrix @ found.z <= limits + 1e-9).all()
    assert (found.z >= 0).all()
    assert (matrix.T @ found.prices >= values - 1e-7).all()
    assert float(values @ found.z) == pytest.approx(found.value)
    assert float(limits @ found.prices) == pytest.approx(found.value)


def test_an_option_that_is_worth_less_and_takes_more_is_not_considered() -> None:
    group = [Choice(1.0, (1.0,)), Choice(0.9, (1.0,)), Choice(0.5, (0.2,)), Choice(0.5, (0.3,))]
    assert undominated(group) == [2, 0]


def test_what_nothing_bounds_is_admitted_whole() -> None:
    found = allocate([[Choice(1.0, (0.0,))], [Choice(-1.0, (0.0,))]], [1.0])
    assert (found.chosen, found.admitted, found.value) == ((0, None), (1.0, 0.0), 1.0)
