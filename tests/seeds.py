"""Seeds for a test that draws its own cases: some in every run, more in the heavy one."""

from typing import Any

import pytest

__all__ = ["seeds"]


def seeds(count: int, heavy: int) -> list[Any]:
    """Return the seeds 0, 1, ...: count for `make test`, and heavy more for `make test-heavy`."""
    more = range(count, count + heavy)
    return [*range(count), *(pytest.param(seed, marks=pytest.mark.heavy) for seed in more)]
