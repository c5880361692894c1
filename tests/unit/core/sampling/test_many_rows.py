"""Rows chosen together against the definition of one row, over whole vocabularies."""

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pd_core.errors import EngineError
from pd_core.sampling import sampling as module
from pd_core.sampling.noise import gumbel, noise_key, shares_left
from pd_core.sampling.one_row import choose_one
from pd_core.sampling.row_blocks import first_largest, largest
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams

WIDTHS = [1, 2, 63, 64, 65, 300, 1000, 8256, 20_001]
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]


def rows_like_a_model(chance: random.Random, num_rows: int, width: int) -> Tensor:
    """Logits of every sort that occurs: steep, flat, with ties, with masked ids."""
    made = torch.Generator().manual_seed(chance.randrange(2**32))
    rows = torch.randn(num_rows, width, generator=made)
    for row in rows:
        row *= chance.choice([0.0, 0.1, 1.0, 4.0, 1000.0])
        if chance.random() < 0.5:
            ranks = torch.randperm(width, generator=made).float()
            row -= chance.choice([0.5, 1.3, 4.0]) * (ranks + 1).log()
        if chance.random() < 0.4:
            row.round_(decimals=chance.choice([0, 1]))
        if chance.random() < 0.3:
            masked = torch.rand(width, generator=made) < chance.choice([0.5, 0.99])
            masked[chance.randrange(width)] = False
            row[masked] = -math.inf
    return rows


def any_params(chance: random.Random) -> SamplingParams:
    if chance.random() < 0.2:
        return SamplingParams()
    return SamplingParams(
        temperature=chance.choice([1e-6, 0.2, 0.7, 1.0, 1.0, 10.0]),
        top_k=chance.choice([0, 0, 0, 1, 2, 40, 64, 65, 700, 10**6]),
        top_p=chance.choice([1.0, 1.0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-12]),
        min_p=chance.choice([0.0, 0.0, 0.0, 0.05, 0.5, 1.0]),
        seed=chance.choice([0, 7, chance.randrange(2**64)]),
    )


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.sampled_from(WIDTHS), st.sampled_from(DTYPES))
@settings(max_examples=150, deadline=None)
def test_rows_together_equal_the_definition_of_each_alone(
    chance: random.Random, width: int, dtype: torch.dtype
) -> None:
    num_rows = chance.randint(1, 9)
    rows = rows_like_a_model(chance, num_rows, width).to(dtype)
    params = [any_params(chance) for _ in range(num_rows)]
    at = [chance.randrange(2**31) for _ in range(num_rows)]
    slow = [choose_one(row.double(), p, i) for row, p, i in zip(rows, params, at, strict=True)]
    assert sample(rows, params, at, ()) == slow
    order = chance.sample(range(num_rows), num_rows)
    again = sample(rows[order], [params[i] for i in order], [at[i] for i in order], ())
    assert again == [slow[i] for i in order], "the order of rows changed a token"
    some = sorted(chance.sample(range(num_rows), chance.randint(1, num_rows)))
    fewer = sample(rows[some], [params[i] for i in some], [at[i] for i in some], ())
    assert fewer == [slow[i] for i in some], "other rows changed a token"


@pytest.mark.parametrize("width", [49_152, 50_001])
def test_many_plain_rows_equal_the_definition(width: int) -> None:
    chance = random.Random(width)
    rows = rows_like_a_model(chance, 24, width)
    params = [SamplingParams(temperature=1.0, seed=i) for i in range(24)]
    slow = [choose_one(row.double(), p, 3) for row, p in zip(rows, params, strict=True)]
    assert sample(rows, params, [3] * 24, ()) == slow


@pytest.mark.parametrize("params", [
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.8, top_k=40),
    SamplingParams(temperature=0.7, top_p=0.95),
    SamplingParams(temperature=1.0, min_p=0.05),
])  # fmt: skip
def test_the_definition_decides_only_close_calls(
    params: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()

    def counted(scores: Tensor, asked: SamplingParams, position: int) -> int:
        calls.append(position)
        return choose_one(scores, asked, position)

    monkeypatch.setattr(module, "choose_one", counted)
    made = torch.Generator().manual_seed(1)
    ranks = torch.stack([torch.randperm(20_000, generator=made) for _ in range(64)])
    rows = 10.0 - 1.6 * (ranks + 1).log()
    sample(rows, [replace(params, seed=i) for i in range(64)], range(64), ())
    assert len(calls) <= 3, "the fast paths leave too much to the slow one"


@pytest.mark.slow
@pytest.mark.parametrize("equals", [10, 49])
def test_a_choice_too_close_to_call_is_the_definition_s(equals: int) -> None:
    """Of N equal tokens, top-p's edge at k/N lies within rounding of a sum of probabilities."""
    rows = torch.full((32, 4096), -math.inf)
    rows[:, 7 : 7 + 3 * equals : 3] = 0.0
    for kept in range(1, equals):
        params = [SamplingParams(1.0, top_p=kept / equals, seed=32 * kept + i) for i in range(32)]
        slow = [choose_one(row.double(), p, 0) for row, p in zip(rows, params, strict=True)]
        assert sample(rows, params, [0] * 32, ()) == slow


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [
    SamplingParams(),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=1.0, top_k=5),
    SamplingParams(temperature=1.0, top_p=0.5),
    SamplingParams(temperature=1.0, repetition_penalty=1.0, min_p=0.1),
])  # fmt: skip
@pytest.mark.parametrize("at", [0, 64, 4999])
def test_one_row_of_nonsense_is_an_error(bad: float, params: SamplingParams, at: int) -> None:
    rows = torch.randn(3, 5000)
    rows[1, at] = bad
    with pytest.raises(EngineError, match="nonsense"):
        sample(rows, [params] * 3, [0] * 3, ())


@given(st.randoms(use_true_random=False), st.sampled_from(WIDTHS), st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_the_largest_entries_are_those_of_a_sort(
    chance: random.Random, width: int, count: int
) -> None:
    rows = rows_like_a_model(chance, 3, width)
    falling, ids = rows.sort(descending=True, stable=True)
    values, found = largest(rows, count)
    assert torch.equal(values, falling[:, :count])
    known = values > values[:, -1:]
    assert torch.equal(found[known], ids[:, :count][known])
    top, first = first_largest(rows)
    assert torch.equal(top, falling[:, 0])
    assert torch.equal(first, ids[:, 0])


def test_shares_left_are_those_of_the_noise() -> None:
    keys = torch.tensor([[noise_key(seed, 5)] for seed in range(3)])
    noise = gumbel(torch.arange(70_000), keys)
    exact = -torch.expm1(-torch.exp(-noise))
    ours = shares_left(70_000, keys).double() * 2.0**-52
    assert (ours / exact - 1).abs().max() < 1e-6
