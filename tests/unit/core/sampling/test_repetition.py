"""Repetition costs against a search by hand, and what they do to a sampled text."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import InvalidSamplingParams
from pd_core.sampling.history import History
from pd_core.sampling.repetition import (
    DRY_TOKENS,
    dry_costs,
    repeated_lengths,
    repetition_costs,
)
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams


def slow_lengths(history: list[int]) -> dict[int, int]:
    """Try every earlier place and every length."""
    found: dict[int, int] = {}
    for end in range(1, len(history)):  # history[end] came after history[:end]
        for length in range(1, end + 1):
            if history[end - length : end] == history[len(history) - length :]:
                found[history[end]] = max(found.get(history[end], 0), length)
    return found


@given(st.lists(st.integers(0, 3), max_size=40))
def test_lengths_are_those_of_a_search(history: list[int]) -> None:
    assert repeated_lengths(history) == slow_lengths(history)


def test_costs_grow_by_the_base_from_the_allowed_length_on() -> None:
    params = SamplingParams(dry_multiplier=0.5, dry_base=2.0, dry_allowed_length=3)
    history = [1, 2, 3, 4, 9, 7, 1, 2, 3, 4]  # "1 2 3 4" came before 9
    assert dry_costs(history, params) == {9: 1.0}
    assert dry_costs(history[:-1], params) == {4: 0.5}
    assert dry_costs(history[:-2], params) == {}


def test_costs_end_growing_and_the_history_counts_as_far_as_it_goes() -> None:
    params = SamplingParams(dry_multiplier=1.0, dry_base=10.0, dry_allowed_length=1)
    assert dry_costs([5] * 2000, params) == {5: pytest.approx(1e64)}
    far = [1, 2, 3, *range(10, 10 + DRY_TOKENS), 1, 2]
    assert dry_costs(far, params) == {}
    assert dry_costs(far[-DRY_TOKENS:], params) == {}
    assert dry_costs(far[-DRY_TOKENS:], params) == dry_costs(far, params)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6), st.integers(0, 8))
def test_a_history_that_grows_is_counted_as_a_new_one_is(
    parts: list[list[int]], num_prompt: int
) -> None:
    prompt = [3] * num_prompt
    token_ids = list(prompt)
    growing = History(token_ids, num_prompt)
    response: list[int] = []
    for part in parts:
        token_ids += part
        response += part
        assert growing.counts() == Counter(response)
        assert growing.seen() == {*prompt, *response}
        for most in (1, 4, 100):
            assert growing.response_end(most) == response[-most:]


def test_presence_and_frequency_cost_what_the_answer_has_never_the_prompt() -> None:
    history = History([7, 7, 9, 1, 2, 1, 1], 3)
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    assert repetition_costs(history, params) == {1: 1.25, 2: 0.75}
    assert repetition_costs(History([7, 9], 2), params) == {}
    both = SamplingParams(presence_penalty=-0.5, dry_multiplier=2.0, dry_allowed_length=1)
    assert repetition_costs(history, both) == {1: 1.5, 2: 1.5}, "1 came before 2 and before 1"


def test_a_loop_is_left() -> None:
    """Logits that always favour what came two tokens ago loop for ever, but for the cost."""

    def write(params: SamplingParams) -> list[int]:
        text = [0, 1]
        for position in range(2, 60):
            logits = torch.zeros(1, 6)
            logits[0, text[-2]] = 3.0
            text += sample(logits, [params], [position], [], [History(text, 0)])
        return text

    assert write(SamplingParams()) == [0, 1] * 30
    params = SamplingParams(dry_multiplier=0.8, dry_base=1.75, dry_allowed_length=4)
    assert len(set(write(params))) > 2


def test_a_row_without_it_is_as_ever_and_one_with_it_needs_its_history() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    plain = SamplingParams(temperature=1.0, seed=3)
    dry = SamplingParams(temperature=1.0, seed=3, dry_multiplier=5.0)
    alone = sample(logits[:1], [plain], [4], [])
    history = [7, 8, alone[0], 7, 8]
    both = sample(logits, [plain, dry], [4, 4], [], [None, History([], 0)])
    assert both[:1] == alone
    assert sample(logits[:1], [dry], [4], [], [History(history, 0)]) != alone
    with pytest.raises(AssertionError, match="no history"):
        sample(logits[:1], [dry], [4], [])


@pytest.mark.parametrize(
    "values",
    [
        {"dry_multiplier": -0.1},
        {"dry_multiplier": float("nan")},
        {"dry_multiplier": 11.0},
        {"dry_base": 0.5},
        {"dry_base": float("inf")},
        {"dry_allowed_length": 0},
        {"dry_allowed_length": 513},
        {"min_p": -0.1},
        {"min_p": float("nan")},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -1.0},
        {"repetition_penalty": float("nan")},
        {"repetition_penalty": float("inf")},
        {"presence_penalty": 2.5},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": -2.5},
    ],
)
def test_values_out_of_range_are_named(values: dict[str, float]) -> None:
    with pytest.raises(InvalidSamplingParams, match=next(iter(values))):
        SamplingParams(**values)  # type: ignore[arg-type]
