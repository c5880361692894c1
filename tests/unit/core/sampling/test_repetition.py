"""Repetition costs against a search by hand, and what they do to a sampled text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import InvalidSamplingParams
from pd_core.sampling.repetition import HISTORY_TOKENS, repeated_lengths, repetition_costs
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
    assert repetition_costs(history, params) == {9: 1.0}
    assert repetition_costs(history[:-1], params) == {4: 0.5}
    assert repetition_costs(history[:-2], params) == {}


def test_costs_end_growing_and_the_history_counts_as_far_as_it_goes() -> None:
    params = SamplingParams(dry_multiplier=1.0, dry_base=10.0, dry_allowed_length=1)
    assert repetition_costs([5] * 2000, params) == {5: pytest.approx(1e64)}
    far = [1, 2, 3, *range(10, 10 + HISTORY_TOKENS), 1, 2]
    assert repetition_costs(far, params) == {}
    assert repetition_costs(far[-HISTORY_TOKENS:], params) == {}
    assert repetition_costs(far[-HISTORY_TOKENS:], params) == repetition_costs(far, params)


def test_a_loop_is_left() -> None:
    """Logits that always favour what came two tokens ago loop for ever, but for the cost."""

    def write(params: SamplingParams) -> list[int]:
        text = [0, 1]
        for position in range(2, 60):
            logits = torch.zeros(1, 6)
            logits[0, text[-2]] = 3.0
            text += sample(logits, [params], [position], [], [text])
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
    both = sample(logits, [plain, dry], [4, 4], [], [[], []])
    assert both[:1] == alone
    assert sample(logits[:1], [dry], [4], [], [history]) != alone
    with pytest.raises(AssertionError, match="no histories"):
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
    ],
)
def test_values_out_of_range_are_named(values: dict[str, float]) -> None:
    with pytest.raises(InvalidSamplingParams, match=next(iter(values))):
        SamplingParams(**values)  # type: ignore[arg-type]
