"""What a key may use: never more than its quota, and what it did not use comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import QuotaExceeded, TokenLimitTooHigh
from pd_server.keys.quota import Account, Charge, Quota

DAY_S = 86_400.0


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def test_without_bounds_everything_passes(clock: _Clock) -> None:
    account = Account("anna", Quota(), clock)
    charges = [account.admit(10**9) for _ in range(100)]
    assert account.extend(charges[0], 10**9) == 10**9
    assert account.num_open == 100


def test_streams_at_once_are_bounded_and_free_again(clock: _Clock) -> None:
    account = Account("anna", Quota(streams=2), clock)
    first, _second = account.admit(1), account.admit(1)
    with pytest.raises(QuotaExceeded, match=r"'anna'.* 2 requests at once"):
        account.admit(1)
    account.settle(first, 1)
    account.settle(first, 1)  # again: nothing changes
    account.admit(1)
    with pytest.raises(QuotaExceeded):
        account.admit(1)


def test_a_burst_of_a_minute_then_an_even_rate(clock: _Clock) -> None:
    account = Account("anna", Quota(requests_per_minute=30), clock)
    for _ in range(30):
        account.settle(account.admit(1), 1)
    with pytest.raises(QuotaExceeded, match="30 requests a minute") as raised:
        account.admit(1)
    assert raised.value.retry_after_s == pytest.approx(2.0)
    clock.now_s += 2.001
    account.admit(1)
    with pytest.raises(QuotaExceeded):
        account.admit(1)


def test_unused_tokens_come_back(clock: _Clock) -> None:
    account = Account("anna", Quota(tokens_per_day=100), clock)
    charge = account.admit(80)
    with pytest.raises(QuotaExceeded, match="100 tokens a day") as raised:
        account.admit(30)
    assert raised.value.retry_after_s == pytest.approx(10 * DAY_S / 100)
    account.settle(charge, 20)
    account.admit(80)


def test_more_than_a_day_has_is_never_worth_a_retry(clock: _Clock) -> None:
    account = Account("anna", Quota(tokens_per_day=100), clock)
    with pytest.raises(TokenLimitTooHigh, match="100 a day"):
        account.admit(101)
    assert account.num_open == 0


def test_an_extension_is_cut_to_what_is_left(clock: _Clock) -> None:
    account = Account("anna", Quota(tokens_per_day=100), clock)
    charge = account.admit(70)
    assert account.extend(charge, 50) == 30
    assert account.extend(charge, 50) == 0
    account.settle(charge, 60)
    assert account.extend(charge, 5) == 0
    account.admit(40)


def test_what_the_server_has_no_room_for_comes_back(clock: _Clock) -> None:
    account = Account("anna", Quota(tokens_per_day=100), clock)
    charge = account.admit(10)
    for _ in range(50):  # asked again and again, as a client may
        assert account.extend(charge, 60) == 60
        account.give_back(charge, 60)
    assert account.extend(charge, -5) == 0
    account.settle(charge, 10)
    account.admit(90)


def test_a_changed_quota_holds_at_once_and_an_equal_one_forgives_nothing(clock: _Clock) -> None:
    account = Account("anna", Quota(tokens_per_day=100), clock)
    account.settle(account.admit(100), 100)
    account.change(Quota(tokens_per_day=100))
    with pytest.raises(QuotaExceeded):
        account.admit(1)
    account.change(Quota(tokens_per_day=50))
    account.admit(50)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 60), st.integers(0, 60), st.integers(0, 40), st.floats(0, DAY_S / 3)
        ),
        max_size=40,
    )
)
def test_a_key_never_uses_more_than_its_quota(
    asks: list[tuple[int, int, int, float]],
) -> None:
    """Whatever is asked, extended, used and waited: at most a full bucket and what has refilled."""
    clock = _Clock()
    account = Account("anna", Quota(tokens_per_day=100), clock)
    used = 0
    charge: Charge | None = None
    for wanted, more, unused, wait_s in asks:
        try:
            charge = account.admit(wanted)
        except QuotaExceeded:
            clock.now_s += wait_s
            continue
        reserved = wanted + account.extend(charge, more)
        spent = max(0, reserved - unused)
        account.settle(charge, spent)
        used += spent
        assert used <= 100 + 100 * clock.now_s / DAY_S + 1e-6
        clock.now_s += wait_s
