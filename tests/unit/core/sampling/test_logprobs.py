"""Logprobs against a slow computation, and what they may not depend on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.sampling.logprobs import asked_logprobs, token_logprobs
from pd_core.sampling_params import SamplingParams

# Quarters, so that ties are common.
LOGITS = st.lists(st.integers(-40, 40).map(lambda x: x / 4), min_size=5, max_size=300)


def slow(logits: list[float], token_id: int, count: int) -> tuple[float, list[int], list[float]]:
    total = math.log(math.fsum(math.exp(x) for x in logits))
    top = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:count]
    return logits[token_id] - total, top, [logits[i] - total for i in top]


@given(LOGITS, st.integers(0, 4), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_equals_the_slow_computation(logits: list[float], token_id: int, count: int) -> None:
    (told,) = token_logprobs(torch.tensor([logits]), [token_id], [count])
    logprob, top, top_logprobs = slow(logits, token_id, count)
    assert told.logprob == pytest.approx(logprob, rel=1e-6, abs=1e-7)
    assert list(told.top_ids) == top, "of equals the lowest, also at the edge"
    assert list(told.top_logprobs) == pytest.approx(top_logprobs, rel=1e-6, abs=1e-7)


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_depend_on_its_batch(seed: int, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, 49_157, generator=generator) * 4
    ids = [(seed + row) % 49_157 for row in range(num_rows)]
    counts = [(seed + row) % 21 for row in range(num_rows)]
    together = token_logprobs(logits, ids, counts)
    alone = [token_logprobs(logits[i : i + 1].clone(), ids[i : i + 1], counts[i : i + 1])[0]
             for i in range(num_rows)]  # fmt: skip
    assert together == alone, "to the last bit"


def test_they_are_float32_values() -> None:
    (told,) = token_logprobs(torch.randn(1, 50), [3], [5])
    for value in (told.logprob, *told.top_logprobs):
        assert torch.tensor(value, dtype=torch.float32).item() == value


def test_what_cannot_be_is_minus_infinity() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0]])
    (told,) = token_logprobs(logits, [1], [3])
    assert told.logprob == -math.inf
    assert told.top_ids == (0, 2, 1)
    assert told.top_logprobs == (told.top_logprobs[0], told.top_logprobs[0], -math.inf)
    assert told.top_logprobs[0] == pytest.approx(-math.log(2))


def test_only_who_asks_is_told_and_by_the_model_alone() -> None:
    logits = torch.randn(3, 40)
    odd = SamplingParams(temperature=2.0, top_k=1, logit_bias=((7, 100.0),), logprobs=2)
    told = asked_logprobs(logits, [SamplingParams(), odd, SamplingParams(logprobs=0)], [7, 7, 7])
    assert told[0] is None
    assert told[1:] == token_logprobs(logits[1:], [7, 7], [2, 0])
