"""A small linear program, solved exactly: the most of c z with A z <= b, z >= 0, where b >= 0.

The programs here have a few dozen rows, so a dense tableau is fast enough. As b is not negative,
z = 0 is a first solution and no search for one is needed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Solution", "maximise"]

Vector = NDArray[np.float64]

_ZERO = 1e-9
_STEEPEST_PIVOTS = 2_000  # afterwards Bland's rule, which never runs in a circle


@dataclass(frozen=True, slots=True)
class Solution:
    """An optimum and its proof.

    Attributes:
        value: c z.
        z: where it is reached.
        prices: of the rows, y >= 0 with A'y >= c and b y = value; no z can be better than b y.
    """

    value: float
    z: Vector
    prices: Vector


def maximise(values: Vector, matrix: Vector, limits: Vector) -> Solution:
    """Return the most of values z with matrix z <= limits and z >= 0.

    Args:
        values: c, one for each column.
        matrix: A, rows by columns.
        limits: b, one for each row, none negative; every column must be bounded by some row.
    """
    num_rows, num_columns = matrix.shape
    assert (limits >= 0).all(), "z = 0 must be a solution"
    tableau = np.zeros((num_rows + 1, num_columns + num_rows + 1))
    tableau[:-1, :num_columns] = matrix
    tableau[:-1, num_columns:-1] = np.eye(num_rows)
    tableau[:-1, -1] = limits
    tableau[-1, :num_columns] = -values
    basis = np.arange(num_columns, num_columns + num_rows)
    pivots = 0
    while (entering := _entering(tableau[-1, :-1], pivots)) is not None:
        leaving = _leaving(tableau, basis, entering)
        _pivot(tableau, leaving, entering)
        basis[leaving] = entering
        pivots += 1
    z = np.zeros(num_columns + num_rows)
    z[basis] = tableau[:-1, -1]
    prices = np.maximum(tableau[-1, num_columns:-1], 0.0)
    return Solution(float(tableau[-1, -1]), z[:num_columns], prices)


def _entering(costs: Vector, pivots: int) -> int | None:
    """Return the column that improves the value; None at the optimum."""
    if pivots < _STEEPEST_PIVOTS:
        best = int(costs.argmin())
        return best if costs[best] < -_ZERO else None
    improving = np.flatnonzero(costs < -_ZERO)
    return int(improving[0]) if improving.size else None


def _leaving(tableau: Vector, basis: NDArray[np.int64], entering: int) -> int:
    column, limits = tableau[:-1, entering], tableau[:-1, -1]
    rows = np.flatnonzero(column > _ZERO)
    assert rows.size, "every column is bounded by a row"
    ratios = limits[rows] / column[rows]
    tied = rows[ratios <= ratios.min() + _ZERO]
    return int(tied[basis[tied].argmin()])


def _pivot(tableau: Vector, row: int, column: int) -> None:
    tableau[row] /= tableau[row, column]
    factors = tableau[:, column].copy()
    factors[row] = 0.0
    tableau -= np.outer(factors, tableau[row])
