"""The token log's rules one by one, and its invariants under anything that can happen."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pd_core.errors import ProtocolError
from pd_core.generation import FinishReason, TokenLogprobs
from pd_device_client.contract.outcome import Origin
from pd_device_client.session.token_log import TokenLog

EOS = 0


def test_cloud_tokens_commit_in_order_before_the_claim() -> None:
    log = TokenLog(10)
    log.receive(0, [5, 6])
    log.receive(2, [7])
    assert log.token_ids == [5, 6, 7]
    assert log.origins == [Origin.CLOUD] * 3


def test_duplicates_are_dropped_and_a_missing_position_is_an_error() -> None:
    log = TokenLog(10)
    log.receive(0, [5, 6])
    log.receive(1, [6, 7])
    assert (log.token_ids, log.disagreed) == ([5, 6, 7], 0)
    with pytest.raises(ProtocolError, match="position 4, but 3 is missing"):
        log.receive(4, [9])


def test_after_the_claim_only_the_device_commits() -> None:
    log = TokenLog(10)
    log.receive(0, [5])
    assert log.claim() == 1
    log.receive(1, [6, 7])
    assert log.token_ids == [5]
    log.commit_device(1, 6)
    assert log.token_ids == [5, 6]
    assert log.origins == [Origin.CLOUD, Origin.DEVICE]
    assert log.disagreed == 0


def test_a_differing_cloud_token_in_flight_is_counted_and_never_committed() -> None:
    log = TokenLog(10)
    log.receive(0, [5])
    log.claim()
    log.commit_device(1, 8)
    log.receive(1, [9, 10])
    assert (log.token_ids, log.disagreed, log.diverged) == ([5, 8], 1, True)
    log.release_claim()
    log.receive(2, [10, 11])
    assert log.token_ids == [5, 8], "a diverged stream continues another text"


def test_what_was_held_aside_serves_when_the_device_fails() -> None:
    log = TokenLog(10)
    log.receive(0, [5])
    log.claim()
    log.receive(1, [6, 7])
    log.release_claim()
    assert (log.token_ids, log.claimed_at) == ([5, 6, 7], None)
    log.receive(3, [8])
    assert log.token_ids == [5, 6, 7, 8]


def test_what_was_held_aside_is_dropped_once_the_device_differs() -> None:
    log = TokenLog(10)
    log.claim()
    log.receive(0, [6, 7])
    log.commit_device(0, 9)
    log.release_claim()
    assert (log.token_ids, log.disagreed) == ([9], 1)


def test_the_device_may_be_ahead_before_the_first_cloud_token() -> None:
    log = TokenLog(10)
    log.commit_device(0, 5)
    log.receive(0, [5, 6])
    assert log.origins == [Origin.DEVICE, Origin.CLOUD]


def test_a_new_stream_begins_in_agreement() -> None:
    log = TokenLog(10)
    log.commit_device(0, 5)
    log.receive(0, [4])
    assert log.diverged
    log.new_stream()
    log.receive(1, [6])
    assert log.token_ids == [5, 6]


@pytest.mark.parametrize(
    ("tokens", "kept", "reason"),
    [([5, EOS, 7], [5, EOS], "stop"), ([5, 6, 7, 8], [5, 6, 7], "length")],
)
def test_the_log_closes_by_itself(tokens: list[int], kept: list[int], reason: str) -> None:
    log = TokenLog(3, [EOS, 7])
    log.receive(0, [5, 7, 6])
    assert (log.closed, log.token_ids) == ("stop", [5, 7])
    log = TokenLog(3, [EOS])
    log.receive(0, tokens)
    assert (log.token_ids, log.closed) == (kept, reason)


def test_closing_from_within_a_commit_drops_the_rest_of_the_message() -> None:
    log = TokenLog(
        9, [], lambda position, _: log.close(FinishReason.STOP) if position == 1 else None
    )
    log.receive(0, [5, 6, 7])
    assert (log.token_ids, log.closed) == ([5, 6], "stop")


def test_logprobs_stay_with_the_token_that_was_committed() -> None:
    cloud = [TokenLogprobs(-float(i)) for i in range(6)]
    device = TokenLogprobs(-99.0)
    log = TokenLog(10)
    log.receive(0, [5, 6], cloud[:2])
    log.receive(1, [6, 7], cloud[1:3])  # one of them again
    log.claim()
    log.receive(3, [8, 9, 10], cloud[3:])  # set aside
    log.commit_device(3, 8, device)
    log.release_claim()
    assert log.token_ids == [5, 6, 7, 8, 9, 10]
    assert log.logprobs == {
        0: cloud[0],
        1: cloud[1],
        2: cloud[2],
        3: device,
        4: cloud[4],
        5: cloud[5],
    }
    log.receive(6, [11])
    assert 6 not in log.logprobs


class LogMachine(RuleBasedStateMachine):
    """Random arrivals, duplicates, claims, failures and differing sides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.log = TokenLog(12, [EOS], lambda p, t: self.seen.append((p, t)))
        self.sent = 0  # next position of the present cloud stream
        self.frozen: list[int] = []

    @rule(count=st.integers(1, 4), token=st.integers(0, 3), back=st.integers(0, 2))
    def cloud_sends(self, count: int, token: int, back: int) -> None:
        first = max(self.sent - back, 0)
        before = self.log.length
        self.log.receive(first, [token] * count)
        self.sent = max(self.sent, first + count)
        if self.log.claimed_at is not None:
            assert self.log.length == before, "the cloud committed after the claim"

    @precondition(lambda self: self.log.claimed_at is None and not self.log.closed)
    @rule()
    def device_claims(self) -> None:
        assert self.log.claim() == self.log.length

    @precondition(lambda self: not self.log.closed and self.log.open_to_device)
    @rule(token=st.integers(0, 3))
    def device_commits(self, token: int) -> None:
        self.log.commit_device(self.log.length, token)

    @precondition(lambda self: self.log.claimed_at is not None)
    @rule()
    def device_gives_the_claim_back(self) -> None:
        self.log.release_claim()

    @rule()
    def cloud_starts_again(self) -> None:
        self.log.new_stream()
        self.sent = self.log.length

    @rule(gap=st.integers(1, 3))
    def cloud_leaves_one_out(self, gap: int) -> None:
        if self.log.closed:
            return
        before = list(self.log.token_ids)
        with pytest.raises(ProtocolError):
            self.log.receive(self.sent + gap, [1])
        assert self.log.token_ids == before

    @invariant()
    def each_position_is_committed_once_and_never_changes(self) -> None:
        assert [p for p, _ in self.seen] == list(range(self.log.length))
        assert [t for _, t in self.seen] == self.log.token_ids
        assert self.log.token_ids[: len(self.frozen)] == self.frozen
        self.frozen = list(self.log.token_ids)

    @invariant()
    def it_ends_at_the_first_end_of_sequence_or_the_limit(self) -> None:
        ids = self.log.token_ids
        assert len(ids) <= 12
        assert EOS not in ids[:-1]
        assert bool(self.log.closed) == (len(ids) == 12 or ids[-1:] == [EOS])
        assert len(self.log.origins) == len(ids)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
