"""The labelled stand-in for a sampler: deterministic, sensitive to every token before it."""

from hypothesis import given
from hypothesis import strategies as st

from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams

ids = st.lists(st.integers(0, 99), max_size=30)


@given(ids, ids, st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_a_prefix_in_pieces_is_the_prefix(a: list[int], b: list[int], seed: int, at: int) -> None:
    whole, pieces = RollingHash(100, [7], a + b), RollingHash(100, [7], a)
    pieces.extend(b)
    sampling = SamplingParams(seed=seed)
    assert whole.next_token(at, sampling) == pieces.next_token(at, sampling)


@given(ids, st.integers(0, 1000), st.sets(st.integers(0, 9), min_size=1, max_size=5))
def test_the_end_comes_only_where_it_is_forced(prefix: list[int], at: int, eos: set[int]) -> None:
    state = RollingHash(10, sorted(eos), prefix)
    assert 0 <= state.next_token(at, SamplingParams()) < 10
    assert state.next_token(at, SamplingParams()) not in eos
    assert state.next_token(at, SamplingParams(forced_length=at + 1)) in eos
    assert state.next_token(at, SamplingParams(forced_length=at + 2)) not in eos


def test_every_ordinary_token_is_made() -> None:
    made = {RollingHash(10, [0, 4, 9], [i]).next_token(0, SamplingParams()) for i in range(500)}
    assert made == {1, 2, 3, 5, 6, 7, 8}


def test_a_lost_doubled_or_moved_token_changes_what_follows() -> None:
    def after(*prefix: int) -> list[int]:
        state = RollingHash(1 << 20, [0], prefix)
        return [state.next_token(position, SamplingParams()) for position in range(3)]

    answers = [after(1, 2, 3), after(1, 3), after(1, 2, 2, 3), after(2, 1, 3)]
    assert len({tuple(answer) for answer in answers}) == 4
