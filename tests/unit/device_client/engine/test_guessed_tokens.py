"""Guessing tokens changes no token, at any handoff, however tokens are fed and sampled."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.identity.numerics import unchecked
from pd_core.sampling_params import SamplingParams
from pd_core.speculation.speculation import Speculation
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.engine.torch_engine import TorchLocalEngine
from tests.seeds import seeds
from tests.server_harness import plain_loop

LENGTH = 24
LOOP = "def f(a, b):\n    return a + b\n\ndef f(a, b):\n    return"


class _Always(Speculation):
    """Guesses whether or not it pays."""

    def draft_tokens(self) -> int:
        return self._draft_tokens


@pytest.fixture(scope="module")
def real() -> LoadedModel:
    return load_model(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("random-tiny")


def guessing(loaded: LoadedModel, most: int, kept_kv_bytes: int = 0) -> TorchLocalEngine:
    engine = TorchLocalEngine(loaded, chunk_tokens=16, speculate=most, kept_kv_bytes=kept_kv_bytes)
    engine.speculation = _Always(most)
    return engine


def repetitive(chance: random.Random, num_tokens: int, vocab_size: int) -> list[int]:
    some = [chance.randrange(8, vocab_size) for _ in range(chance.choice([2, 5, 9]))]
    return [chance.choice(some) for _ in range(num_tokens)]


def any_sampling(chance: random.Random) -> SamplingParams:
    params = SamplingParams(
        temperature=chance.choice([0.0, 0.0, 0.3, 1.0]),
        top_p=chance.choice([1.0, 0.9, 0.3]),
        seed=chance.randrange(2**64),
        ignore_eos=True,
    )
    if chance.random() < 0.5:
        params = replace(
            params,
            repetition_penalty=chance.choice([1.0, 1.1, 0.7]),
            presence_penalty=chance.choice([0.0, 0.3, -0.5]),
            frequency_penalty=chance.choice([0.0, 0.1, -0.3]),
            dry_multiplier=chance.choice([0.0, 0.3]),
        )
    return params


async def answer(
    engine: TorchLocalEngine,
    prompt: Sequence[int],
    params: SamplingParams,
    cloud: Sequence[int],
    chance: random.Random,
    length: int = LENGTH,
    counts: Sequence[int] = (1, 1, 2, 7),
) -> list[int]:
    """Feed the prompt and the cloud's tokens in pieces, then decode; return the whole answer."""
    sequence = engine.open(params, tuple(prompt))
    pending, made = list(prompt[engine.cached_tokens(prompt) :]), list[int]()
    coming = list(cloud)
    while True:
        chunk, pending = pending[:16], pending[16:]
        sampled = await sequence.feed(chunk, None if pending else len(made))
        if pending:
            continue
        assert sampled is not None
        if len(made) >= length:
            break
        if coming:
            count = chance.choice(counts)
            pending, coming = coming[:count], coming[count:]
        else:
            pending = [sampled]
        made += pending
    sequence.close()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(3, heavy=5))
@pytest.mark.parametrize("model", ["real", "tiny"])
def test_guesses_change_no_token(seed: int, model: str, request: pytest.FixtureRequest) -> None:
    loaded: LoadedModel = request.getfixturevalue(model)
    chance = random.Random(seed)
    engine = guessing(loaded, chance.choice([1, 3, 8]), kept_kv_bytes=1 << 24)
    params = any_sampling(chance)
    prompt = repetitive(chance, chance.choice([1, 5, 40]), loaded.model.num_token_ids)
    right = plain_loop(loaded, prompt, LENGTH, params)
    for handoff in (0, chance.randrange(LENGTH)):
        got = asyncio.run(answer(engine, prompt, params, right[:handoff], chance))
        assert got == right, f"handoff at {handoff}"
    # A cloud of other numerics may send other tokens; the answer continues those.
    other = [*right[:5], (right[5] + 1) % 90 + 8, 9]
    without = TorchLocalEngine(loaded)
    answers = [
        asyncio.run(answer(each, prompt, params, other, chance, LENGTH))
        for each in (engine, without)
    ]
    assert answers[0] == answers[1]
    assert answers[0][: len(other)] == other


@pytest.mark.slow
def test_every_handoff_gives_the_same_text_and_guesses_are_right(real: LoadedModel) -> None:
    engine = guessing(real, 3)
    prompt = real.tokenizer.encode(LOOP)
    params = SamplingParams(ignore_eos=True)
    right = plain_loop(real, prompt, LENGTH, params)
    for handoff in range(LENGTH + 1):
        chance = random.Random(handoff)
        assert asyncio.run(answer(engine, prompt, params, right[:handoff], chance)) == right
    assert engine.speculation.num_accepted > LENGTH


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(ignore_eos=True),
        SamplingParams(ignore_eos=True, frequency_penalty=0.8),
    ],
    ids=["greedy", "penalty"],
)
def test_a_cloud_that_leaves_the_guesses_is_followed(
    real: LoadedModel, params: SamplingParams
) -> None:
    """Right guesses are in the cache, and counted as history, when another token comes."""
    engine, without = guessing(real, 5), TorchLocalEngine(real)
    prompt = real.tokenizer.encode(LOOP)
    right = plain_loop(real, prompt, LENGTH, params)
    chance = random.Random(1)
    for position in range(3, LENGTH - 4, 2):
        for count in (1, 3):
            other = [*right[:position], right[position] ^ 1, *right[position : position + 2]]
            answers = [
                asyncio.run(answer(each, prompt, params, other, chance, LENGTH, (count,)))
                for each in (engine, without)
            ]
            assert answers[0] == answers[1], f"left at {position}"
    assert engine.speculation.num_accepted > LENGTH


def test_the_context_s_end_is_not_passed(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(tiny.model.config, max_context_tokens=40)
    monkeypatch.setattr(tiny.model, "config", short)
    prompt = [9] * (40 - 6)
    params = SamplingParams(ignore_eos=True)
    got = asyncio.run(answer(guessing(tiny, 8), prompt, params, (), random.Random(0), 6))
    assert got == plain_loop(tiny, prompt, 6, params)


def test_nothing_is_guessed_without_reproducible_numerics(tiny: LoadedModel) -> None:
    plain = replace(tiny, numerics=unchecked("any"))
    assert not TorchLocalEngine(plain, speculate=3).speculation.may_draft
    assert TorchLocalEngine(tiny, speculate=3).speculation.may_draft
