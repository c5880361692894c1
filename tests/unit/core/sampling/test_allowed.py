"""Rows whose answers have a form, against the definition: a choice among the allowed ids alone."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pd_core.sampling.allowed import only_allowed
from pd_core.sampling.history import History
from pd_core.sampling.one_row import choose_one
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from tests.unit.core.sampling.test_many_rows import any_params, rows_like_a_model


def words(allowed: set[int], width: int) -> NDArray[np.int32]:
    bits = np.zeros(-(-width // 32) * 32, np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def any_mask(chance: random.Random, row: torch.Tensor) -> set[int]:
    """Some ids, of which at least one can be chosen."""
    width = len(row)
    count = min(width, chance.choice([1, 2, 5, 128, 129, width // 2, width]))
    likely = [i for i in range(width) if row[i] > -math.inf]
    return {chance.choice(likely), *chance.sample(range(width), max(1, count))}


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.sampled_from([1, 31, 32, 33, 300, 8256]))
@settings(max_examples=60, deadline=None)
def test_a_row_with_a_form_is_chosen_among_the_allowed_ids(
    chance: random.Random, width: int
) -> None:
    num_rows = chance.randint(1, 6)
    logits = rows_like_a_model(chance, num_rows, width)
    params = [any_params(chance) for _ in range(num_rows)]
    positions = [chance.randrange(1000) for _ in range(num_rows)]
    sets = [any_mask(chance, row) if chance.random() < 0.7 else None for row in logits]
    masks = [None if one is None else words(one, width) for one in sets]
    before = logits.clone()
    tokens = sample(logits, params, positions, [0], None, masks)
    assert torch.equal(logits, before)
    for row, one, position, allowed, token in zip(
        logits, params, positions, sets, tokens, strict=True
    ):
        scores = row.double()
        if allowed is not None:
            assert token in allowed
            some = torch.full_like(scores, -math.inf)
            some[list(allowed)] = scores[list(allowed)]
            scores = some
        assert token == choose_one(scores, one, position)


def test_a_greedy_choice_is_the_largest_allowed_logit() -> None:
    logits = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(3))
    allowed = set(random.Random(3).sample(range(50_000), 40))
    token = sample(logits, [SamplingParams()], [0], [], None, [words(allowed, 50_000)])[0]
    assert token == max(allowed, key=lambda i: float(logits[0, i]))


def test_penalties_work_among_the_allowed_ids() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 9.0]])
    params = SamplingParams(presence_penalty=2.0, repetition_penalty=2.0)
    history = History([0, 3], 0)
    token = sample(logits, [params], [2], [], [history], [words({0, 1}, 4)])[0]
    assert token == 1  # 0 stands in the answer: 5 / 2 - 2 < 4; and 3, the largest, is not allowed


def test_ids_behind_the_last_word_are_not_allowed() -> None:
    scores = only_allowed(torch.zeros(1, 70), [np.full(2, -1, np.int32)])
    assert torch.isfinite(scores[0, :64]).all()
    assert torch.isinf(scores[0, 64:]).all()
