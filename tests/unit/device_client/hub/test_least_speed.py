"""A hub that drips is given up; one that pauses or is merely slow is not."""

from itertools import repeat

import httpx2
import pytest

from pd_device_client.hub.least_speed import at_least


class Clock:
    """Goes on by `step_s` at every look."""

    def __init__(self, step_s: float) -> None:
        self._now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


def test_a_hub_that_drips_is_given_up_after_a_minute() -> None:
    drips = repeat(b"x", 13)
    with pytest.raises(httpx2.ReadTimeout, match="bytes a second"):
        list(at_least(drips, Clock(5.0)))


@pytest.mark.parametrize("step_s", [0.01, 5.0, 29.0])
def test_a_hub_that_sends_enough_is_read_to_its_end(step_s: float) -> None:
    parts = [b"x" * 40_000] * 500
    assert list(at_least(parts, Clock(step_s))) == parts
