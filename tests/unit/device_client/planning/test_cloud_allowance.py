"""Caps on the cloud: never passed, whatever is asked, given back or spent by others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import ConfigError
from pd_device_client.device.cloud_use import CloudUse
from pd_device_client.planning.cloud_allowance import CloudAllowance, CloudCaps


def test_without_caps_all_is_granted() -> None:
    allowance = CloudAllowance(CloudCaps())
    assert allowance.tokens_left(10_000) is None
    assert allowance.take(5000, 10_000) == 5000


def test_a_cap_holds_over_streams_and_what_was_not_made_comes_back() -> None:
    allowance = CloudAllowance(CloudCaps(request_tokens=50))
    assert allowance.take(30, 100) == 30
    assert allowance.take(30) == 20
    assert allowance.take(1, 130) == 0
    allowance.give_back(5)
    assert allowance.take(30, 130) == 5


def test_money_pays_for_prompts_too_each_time_they_are_sent() -> None:
    caps = CloudCaps(request_cost=0.002, prompt_price=1.0, answer_price=10.0)
    allowance = CloudAllowance(caps)  # 0.001 for a prompt of 1,000 leaves 100 tokens
    assert allowance.tokens_left(1000) == 100
    assert allowance.take(60, 1000) == 60
    assert allowance.take(60, 1060) == 0, "the prompt once more is not paid for"
    assert allowance.take(60) == 40


def test_a_cap_on_money_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cloud-answer-price"):
        CloudCaps(day_cost=1.0)


def test_requests_at_the_same_time_share_a_day() -> None:
    account = CloudUse(None)
    caps = CloudCaps(day_tokens=100)
    first, second = CloudAllowance(caps, account), CloudAllowance(caps, account)
    assert (first.take(80, 9), second.take(80, 9)) == (80, 20)
    assert second.tokens_left(9) == 0
    first.give_back(30)
    assert second.take(80) == 30


@given(
    cap=st.integers(0, 200),
    steps=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 80)), max_size=12),
)
def test_no_sequence_of_streams_makes_more_than_the_cap(
    cap: int, steps: list[tuple[int, int]]
) -> None:
    allowance, made = CloudAllowance(CloudCaps(request_tokens=cap)), 0
    for wanted, unused in steps:
        granted = allowance.take(wanted, 10)
        back = min(unused, granted)
        allowance.give_back(back)
        made += granted - back
    assert made <= cap
