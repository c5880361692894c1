"""The sampler against a slow one in plain Python, and its rules one by one."""

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.errors import EngineError, InvalidSamplingParams
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import MAX_SEED, SamplingParams

EOS = (1, 5)
MASK = 2**64 - 1


def mix(x: int) -> int:
    """splitmix64, as published."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def uniform(seed: int, position: int, token_id: int) -> float:
    return ((mix(mix(mix(seed) ^ position) ^ token_id) >> 12) + 0.5) / 2**52


def slow_sample(
    logits: list[float],
    params: SamplingParams,
    position: int,
    prompt: Sequence[int] = (),
    response: Sequence[int] = (),
) -> int:
    if params.forced_length is not None and position >= params.forced_length - 1:
        return EOS[0]
    scores = dict(enumerate(logits))
    if params.ignore_eos or params.forced_length is not None:
        scores = {t: s for t, s in scores.items() if t not in EOS}
    if position < params.min_tokens:
        late = {*EOS, *params.late_token_ids}
        scores = {t: s for t, s in scores.items() if t not in late}
    for t, bias in params.logit_bias:
        if t in scores:
            scores[t] += bias
    for t in scores:
        if t in prompt or t in response:
            factor = params.repetition_penalty
            scores[t] = scores[t] * factor if scores[t] < 0 else scores[t] / factor
        if t in response:
            scores[t] -= params.presence_penalty
        for _ in range(response.count(t)):
            scores[t] -= params.frequency_penalty
    order = sorted(scores, key=lambda t: (-scores[t], t))
    if params.greedy:
        return order[0]
    scores = {t: s / params.temperature for t, s in scores.items()}
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        weights = [math.exp(scores[t] - scores[order[0]]) for t in order]
        total, reached, kept = math.fsum(weights), 0.0, []
        for t, weight in zip(order, weights, strict=True):
            kept.append(t)
            reached += weight / total
            if reached >= params.top_p:
                break
        order = kept
    if params.min_p:
        order = [t for t in order if math.exp(scores[t] - scores[order[0]]) >= params.min_p]
    return max(
        sorted(order),
        key=lambda t: scores[t] - math.log(-math.log(uniform(params.seed, position, t))),
    )


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.integers(0, 30),
    top_p=st.sampled_from([1.0, 0.999, 0.91, 0.43, 1e-9]),
    seed=st.integers(0, MAX_SEED),
    ignore_eos=st.booleans(),
    forced_length=st.none() | st.integers(1, 40),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 2.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.5, -0.25, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5, -0.25]),
    logit_bias=st.just(())
    | st.dictionaries(
        st.integers(0, 7), st.sampled_from([-100.0, -2.5, 0.25, 3.0, 100.0]), max_size=4
    ).map(lambda biased: tuple(sorted(biased.items()))),
    min_tokens=st.sampled_from([0, 0, 1, 40]),
    late_token_ids=st.lists(st.integers(0, 3), max_size=2, unique=True).map(tuple),
    logprobs=st.none() | st.integers(0, 3),
)
TOKENS = st.lists(st.integers(0, 7), max_size=12)
# Quarters, so that ties are common and sums are exact.
LOGITS = st.lists(st.integers(-40, 40).map(lambda x: x / 4), min_size=8, max_size=24)


@pytest.mark.slow
@given(LOGITS, PARAMS, st.integers(0, 2**31), TOKENS, TOKENS)
@settings(max_examples=400, deadline=None)
def test_equals_the_slow_sampler(
    logits: list[float], params: SamplingParams, at: int, prompt: list[int], response: list[int]
) -> None:
    history = History([*prompt, *response], len(prompt))
    got = sample(torch.tensor([logits]), [params], [at], EOS, [history])
    assert got == [slow_sample(logits, params, at, prompt, response)]


@pytest.mark.slow
@given(st.lists(st.tuples(LOGITS, PARAMS, st.integers(0, 50), TOKENS), min_size=2, max_size=5))
@settings(max_examples=50, deadline=None)
def test_rows_do_not_depend_on_each_other(
    rows: list[tuple[list[float], SamplingParams, int, list[int]]],
) -> None:
    logits = torch.full((len(rows), 24), -math.inf)
    for i, (values, _, _, _) in enumerate(rows):
        logits[i, : len(values)] = torch.tensor(values)
    told = [History(r[3], len(r[3]) // 2) for r in rows]
    together = sample(logits, [r[1] for r in rows], [r[2] for r in rows], EOS, told)
    alone = [
        sample(logits[i : i + 1], [r[1]], [r[2]], EOS, [told[i]])[0] for i, r in enumerate(rows)
    ]
    assert together == alone


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=1.0, top_k=3),
        SamplingParams(temperature=1.0, top_p=0.8),
    ],
    ids=["plain", "cold", "top-k", "top-p"],
)
def test_the_distribution_is_the_asked_one(params: SamplingParams) -> None:
    """Chi-square over 3,000 positions; the bound is passed by chance once in 10,000 times."""
    logits = torch.tensor([0.0, 1.0, -0.5, 2.0, 0.7, 1.5])
    draws = 3000
    chosen = sample(logits.expand(draws, -1), [params] * draws, range(draws), ())
    p = (logits.double() / params.temperature).softmax(0)
    if params.top_k or params.top_p < 1:
        keep = [3, 5, 1] if params.top_k else [3, 5, 1, 4]  # .42 .25 .15 .11: 0.82 needs three
        if params.top_p < 1:
            keep = keep[:3]
        kept = torch.zeros_like(p)
        kept[keep] = p[keep]
        p = kept / kept.sum()
    counts = Counter(chosen)
    assert all(p[t] > 0 for t in counts)
    expected = {t: float(p[t]) * draws for t in range(6) if p[t] > 0}
    chi2 = sum((counts[t] - e) ** 2 / e for t, e in expected.items())
    assert chi2 < {5: 25.7, 2: 18.4}[len(expected) - 1]


def test_noise_depends_on_seed_position_and_token_only() -> None:
    flat = torch.zeros(1, 1000)
    tokens = {
        (seed, at): sample(flat, [SamplingParams(temperature=1.0, seed=seed)], [at], ())[0]
        for seed in (0, 1, 2**63, MAX_SEED)
        for at in range(8)
    }
    assert len(set(tokens.values())) > 28, "32 draws of 1,000 are nearly all different"
    again = sample(flat, [SamplingParams(temperature=1.0, seed=MAX_SEED)], [7], ())
    assert again == [tokens[MAX_SEED, 7]]


def test_ties_go_to_the_lowest_id() -> None:
    row = torch.zeros(1, 5000)
    row[0, [70, 4000, 4999]] = 3.0
    assert sample(row, [SamplingParams()], [0], ()) == [70]
    one = SamplingParams(temperature=1.0, top_k=1, seed=11)
    assert sample(row, [one], [0], ()) == [70]


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    row = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()

    def seen(top_p: float) -> set[int]:
        params = [SamplingParams(temperature=1.0, top_p=top_p, seed=s) for s in range(200)]
        return set(sample(row.expand(200, -1), params, [0] * 200, ()))

    assert seen(1e-6) == {0}
    assert seen(0.49) == {0}
    assert seen(0.51) == {0, 1}
    assert seen(0.76) == {0, 1, 2}
    assert seen(1.0) == {0, 1, 2, 3}


def test_min_p_is_a_share_of_the_most_likely_token_s_probability() -> None:
    row = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()

    def seen(min_p: float, temperature: float = 1.0) -> set[int]:
        params = [SamplingParams(temperature, min_p=min_p, seed=s) for s in range(200)]
        return set(sample(row.expand(200, -1), params, [0] * 200, ()))

    assert seen(0.0) == seen(0.24) == {0, 1, 2, 3}
    assert seen(0.26) == seen(0.49) == {0, 1}
    assert seen(0.51) == seen(1.0) == {0}
    assert seen(0.51, temperature=2.0) == {0, 1}, "of the probabilities after the temperature"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_equals_the_processors_of_transformers(seed: int) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    chance = random.Random(seed)
    logits = torch.randn(1, 60, generator=torch.Generator().manual_seed(seed)) * 3
    prompt = [chance.randrange(60) for _ in range(20)]
    response = [chance.randrange(60) for _ in range(10)]
    params = SamplingParams(
        temperature=chance.choice([0.6, 1.0, 1.7]),
        top_k=chance.choice([0, 5, 25]),
        top_p=chance.choice([1.0, 0.95, 0.5]),
        seed=seed,
        min_p=chance.choice([0.0, 0.05, 0.3]),
        repetition_penalty=chance.choice([1.05, 1.3, 0.8]),
    )
    chain = [
        process.RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
        process.TemperatureLogitsWarper(params.temperature),
    ]
    if params.top_k:
        chain.append(process.TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        chain.append(process.TopPLogitsWarper(params.top_p))
    if params.min_p:
        chain.append(process.MinPLogitsWarper(params.min_p))
    scores = logits.double()
    for processor in chain:
        scores = processor(torch.tensor([[*prompt, *response]]), scores)
    for position in range(30):
        noise = [-math.log(-math.log(uniform(seed, position, t))) for t in range(60)]
        theirs = int((scores[0] + torch.tensor(noise, dtype=torch.float64)).argmax())
        history = History([*prompt, *response], len(prompt))
        assert sample(logits, [params], [position], (), [history]) == [theirs]


def test_forced_length_ends_exactly_there() -> None:
    row = torch.zeros(1, 8)
    row[0, 1] = 9.0
    params = SamplingParams(temperature=1.0, forced_length=5)
    tokens = [sample(row, [params], [at], EOS)[0] for at in range(6)]
    assert all(t not in EOS for t in tokens[:4])
    assert tokens[4:] == [1, 1]
    with pytest.raises(InvalidSamplingParams, match="end-of-sequence"):
        sample(row, [params], [0], ())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonsense_from_the_model_is_an_error(bad: float, temperature: float) -> None:
    row = torch.zeros(1, 8)
    row[0, 3] = bad
    with pytest.raises(EngineError, match="nonsense"):
        sample(row, [SamplingParams(temperature=temperature)], [0], ())


def test_masked_ids_never_come() -> None:
    row = torch.zeros(1, 8)
    row[0, 2:] = -math.inf
    params = [SamplingParams(temperature=10.0, seed=s) for s in range(100)]
    assert set(sample(row.expand(100, -1), params, [0] * 100, ())) == {0, 1}
    with pytest.raises(EngineError, match="masked"):
        sample(row[:, 2:], [SamplingParams(temperature=1.0)], [0], ())
