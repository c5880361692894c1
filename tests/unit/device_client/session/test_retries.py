"""Which failures are tried again, and that devices do not come back at one moment."""

from collections import Counter

import pytest

from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudUnavailable,
    InvalidRequest,
    LinkCorrupted,
    QueueFull,
    QuotaExceeded,
)
from pd_device_client.session.retries import retry_in_s


@pytest.mark.parametrize("error", [CloudUnavailable("down"), LinkCorrupted("a bit")])
def test_a_broken_stream_is_tried_three_times(error: Exception) -> None:
    assert isinstance(error, CloudUnavailable | LinkCorrupted)
    waits = [retry_in_s(error, failures, "a") for failures in range(4)]
    for wait_s, whole_s in zip(waits[:3], (0.1, 0.5, 2.0), strict=True):
        assert wait_s is not None
        assert whole_s / 2 <= wait_s <= whole_s
    assert waits[3] is None


@pytest.mark.parametrize("error", [CloudAuthenticationFailed("key"), InvalidRequest("bad")])
def test_what_would_end_alike_is_not(error: CloudAuthenticationFailed | InvalidRequest) -> None:
    assert retry_in_s(error, 0, "a") is None


def test_room_is_waited_for_as_long_as_the_cloud_says_but_not_for_hours() -> None:
    assert retry_in_s(QueueFull("full", 7.5), 0, "a") == 7.5
    assert retry_in_s(QueueFull("full", 0.01), 1, "a") == 0.5
    assert retry_in_s(QuotaExceeded("spent", 59.0), 0, "a") == 59.0
    assert retry_in_s(QuotaExceeded("spent", 3600.0), 0, "a") is None


def test_a_thousand_answers_that_break_together_come_back_apart() -> None:
    waits = [retry_in_s(CloudUnavailable("down"), 1, f"answer-{i}") for i in range(1000)]
    tenths = Counter(int(20 * wait_s) for wait_s in waits if wait_s is not None)
    assert len(tenths) == 5  # 0.25 to 0.5 s by 0.05 s
    assert max(tenths.values()) < 300
    again = [retry_in_s(CloudUnavailable("down"), 1, f"answer-{i}") for i in range(1000)]
    assert waits == again, "one answer's wait is the same in every run"
