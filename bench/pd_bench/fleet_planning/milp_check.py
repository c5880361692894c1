"""A plan's allocation, solved again by HiGHS through scipy: an independent optimum."""

from pd_bench.fleet_planning.fleet_plan import Problem
from pd_core.errors import ConfigError

__all__ = ["milp_value"]


def milp_value(problem: Problem) -> float:
    """Return the worth of the best allocation.

    Raises:
        ConfigError: scipy is not installed, or HiGHS found no optimum.
    """
    try:
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError:
        raise ConfigError("--check milp needs scipy; install it: pip install scipy") from None
    columns = [(j, choice) for j, group in enumerate(problem.choices) for choice in group]
    num, num_groups, num_resources = len(columns), len(problem.choices), len(problem.limits)
    # The first half of the variables are admitted shares, the second says which options are used.
    loads = np.zeros((num_resources, 2 * num))
    used = np.zeros((num_groups, 2 * num))
    for at, (j, choice) in enumerate(columns):
        loads[:, at] = choice.loads
        used[j, num + at] = 1.0
    linked = np.hstack([np.eye(num), -np.eye(num)])
    worth = np.array([choice.value for _, choice in columns])
    solved = milp(
        np.concatenate([-worth, np.zeros(num)]),
        integrality=np.concatenate([np.zeros(num), np.ones(num)]),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(loads, ub=np.array(problem.limits)),
            LinearConstraint(used, ub=np.ones(num_groups)),
            LinearConstraint(linked, ub=np.zeros(num)),
        ],
        options={"mip_rel_gap": 1e-7},
    )
    if not solved.success:
        raise ConfigError(f"HiGHS found no optimum: {solved.message}")
    return float(-solved.fun)
