"""What is kept of finished answers: which, how much of it, and that it changes no bit."""

import asyncio
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.models import KVCache
from pd_core.models.kv_cache import LayerHeads
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.engine.kept_prefixes import KeptPrefixes
from pd_device_client.engine.torch_engine import KEPT_KV_BYTES, TorchLocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile

CPU = torch.device("cpu")
PROFILE = SpeedProfile("test", "a test", 1e-6, 1e-6)
# Whatever is in the prompt costs something, so its cached part must be known too.
SAMPLING = SamplingParams(temperature=0.8, seed=11, ignore_eos=True, repetition_penalty=1.5)


def _cache(num_tokens: int = 1) -> KVCache:
    return KVCache([LayerHeads(1, 1)], 4, num_tokens, dtype=torch.float32, device=CPU)


ONE = _cache().allocated_bytes


def test_the_longest_shared_beginning_is_found_but_never_the_whole_prompt() -> None:
    kept = KeptPrefixes[KVCache](10 * ONE)
    first, second = _cache(), _cache()
    kept.keep([1, 2, 3, 4], first)
    kept.keep([1, 2, 9], second)
    assert kept.take([1, 2, 3, 4, 5]) == (first, 4)
    assert kept.take([1, 2, 3, 4]) == (first, 3)
    assert kept.take([1, 2, 9, 9]) == (second, 3)
    assert kept.take([7, 2, 3]) == (None, 0)
    assert kept.take([1]) == (None, 0)
    assert kept.take([]) == (None, 0)


def test_a_longer_one_replaces_what_it_begins_with() -> None:
    kept = KeptPrefixes[KVCache](10 * ONE)
    kept.keep([1, 2], _cache())
    longer = _cache()
    kept.keep([1, 2, 3], longer)
    assert kept.num_bytes == ONE
    kept.keep([1], _cache())  # adds nothing
    assert kept.num_bytes == ONE
    assert kept.take([1, 2, 3, 4]) == (longer, 3)


def test_what_was_used_longest_ago_goes_first_and_the_bound_holds() -> None:
    kept = KeptPrefixes[KVCache](2 * ONE)
    kept.keep([1, 1], _cache())
    kept.keep([2, 2], _cache())
    kept.take([1, 1, 1])
    kept.keep([3, 3], _cache())
    assert kept.num_bytes == 2 * ONE
    assert [kept.shared_tokens([i, i, i]) for i in (1, 2, 3)] == [2, 0, 2]
    kept.keep([4, 4], _cache(2000))  # larger than all that may be kept
    assert [kept.shared_tokens([i, i, i]) for i in (1, 2, 3, 4)] == [2, 0, 2, 0]
    none = KeptPrefixes[KVCache](0)
    none.keep([1, 1], _cache())
    assert none.num_bytes == 0


_ids = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@given(kept_ids=st.lists(_ids, max_size=6), prompt=_ids)
def test_it_finds_what_a_plain_search_finds(kept_ids: list[list[int]], prompt: list[int]) -> None:
    kept = KeptPrefixes[KVCache](100 * ONE)
    for token_ids in kept_ids:
        kept.keep(token_ids, _cache())

    def common(a: list[int], b: list[int]) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                    min(len(a), len(b)))  # fmt: skip

    best = max((min(common(prompt, ids), len(prompt) - 1) for ids in kept_ids), default=0)
    assert kept.shared_tokens(prompt) == best
    assert kept.take(prompt)[1] == best


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def turns(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """The prompts of a conversation: each goes on from the one before, past a tile of keys."""
    text = "The device keeps what it has computed of a conversation. " * 60
    first = tuple(loaded.tokenizer.encode_prompt(text))
    assert len(first) > 512
    return [first, (*first, *range(300, 340)), (*first, *range(300, 340), *range(400, 450))]


async def _answer(client: DeviceClient, prompt: tuple[int, ...], length: int = 12) -> Outcome:
    ask = Ask("turn", prompt, length, SAMPLING, mode=Mode.DEVICE_ONLY)
    session = client.session(ask)
    async for _ in session.run():
        pass
    return session.outcome


async def _client(loaded: LoadedModel, kept_kv_bytes: int, chunk: int = 128) -> DeviceClient:
    engine = TorchLocalEngine(loaded, chunk_tokens=chunk, kept_kv_bytes=kept_kv_bytes)
    client = DeviceClient(cloud=None, engine=engine, pace_s=1e-6, device_profile=PROFILE)
    await client.start()
    return client


@pytest.mark.slow
async def test_later_turns_prefill_new_text_only_and_say_the_same(
    loaded: LoadedModel, turns: list[tuple[int, ...]]
) -> None:
    with_, without = await _client(loaded, 1 << 30, chunk=100), await _client(loaded, 0)
    cached = []
    for prompt in turns:
        ours, reference = await _answer(with_, prompt), await _answer(without, prompt)
        assert ours.token_ids == reference.token_ids
        assert reference.device_cached_tokens == 0
        cached.append(ours.device_cached_tokens)
    assert cached == [0, len(turns[0]), len(turns[1])]
    await with_.close()
    await without.close()


async def test_kept_keys_and_values_are_the_very_bits_of_a_prefill(
    loaded: LoadedModel, turns: list[tuple[int, ...]]
) -> None:
    prompt = turns[1]
    engine = TorchLocalEngine(loaded, chunk_tokens=77, kept_kv_bytes=KEPT_KV_BYTES)
    first = engine.open(SAMPLING, turns[0])
    await first.feed(list(turns[0]), None)
    first.close()
    caches = []
    for kept in (engine, TorchLocalEngine(loaded, kept_kv_bytes=0)):
        sequence = kept.open(SAMPLING, prompt)
        await sequence.feed(list(prompt[kept.cached_tokens(prompt) :]), 0)
        caches.append(sequence._cache)
        sequence.close()
        await kept.close()
    ours, reference = caches
    assert engine.cached_tokens((*prompt, 1)) == len(prompt)
    for a, b in zip((*ours.keys, *ours.values), (*reference.keys, *reference.values), strict=True):
        assert torch.equal(a[:, : len(prompt)], b[:, : len(prompt)])


@pytest.mark.slow
async def test_two_turns_may_go_on_from_one_conversation_at_a_time(
    loaded: LoadedModel, turns: list[tuple[int, ...]]
) -> None:
    client, reference = await _client(loaded, 1 << 30), await _client(loaded, 0)
    client.turns = type(client.turns)(2)
    await _answer(client, turns[0])
    prompts = [(*turns[0], 7, 7, 7), (*turns[0], 8, 8)]
    both = await asyncio.gather(*(_answer(client, prompt) for prompt in prompts))
    for outcome, prompt in zip(both, prompts, strict=True):
        assert outcome.device_cached_tokens == len(turns[0])
        assert outcome.token_ids == (await _answer(reference, prompt)).token_ids
    await client.close()
    await reference.close()


async def test_an_answer_broken_off_leaves_only_what_was_computed(
    loaded: LoadedModel, turns: list[tuple[int, ...]]
) -> None:
    client, reference = await _client(loaded, 1 << 30, chunk=64), await _client(loaded, 0)
    session = client.session(Ask("r", turns[0], 50, SAMPLING, mode=Mode.DEVICE_ONLY))
    answer = session.run()
    shown = [await anext(answer) for _ in range(5)]
    await answer.aclose()
    assert len(shown) == 5
    ours = await _answer(client, turns[1])
    assert 0 < ours.device_cached_tokens <= len(turns[0])
    assert ours.token_ids == (await _answer(reference, turns[1])).token_ids
    await client.close()
    await reference.close()


@pytest.mark.parametrize("numerics", ["float32", "integer"])
async def test_a_chunk_cancelled_while_it_is_computed_leaves_a_prefix_that_holds(
    numerics: str, turns: list[tuple[int, ...]]
) -> None:
    model, prompt = load_model("random-tiny", numerics=numerics), turns[0]
    began, go_on = threading.Event(), threading.Event()
    forward = model.model.forward

    def held(*given: Any) -> Any:
        began.set()
        assert go_on.wait(60)
        return forward(*given)

    engine = TorchLocalEngine(model, kept_kv_bytes=KEPT_KV_BYTES)
    sequence = engine.open(SAMPLING, prompt)
    await sequence.feed(prompt[:100], None)
    model.model.forward = held  # type: ignore[assignment, method-assign]
    feeding = asyncio.ensure_future(sequence.feed(prompt[100:400], None))
    assert await asyncio.to_thread(began.wait, 60)
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    sequence.close()  # while the pass still runs
    model.model.forward = forward  # type: ignore[method-assign]
    assert engine.cached_tokens(prompt) == 100
    again = engine.open(SAMPLING, prompt)
    go_on.set()
    token = await again.feed(prompt[100:], 0)
    again.close()
    fresh = TorchLocalEngine(model)
    sequence = fresh.open(SAMPLING, prompt)
    assert token == await sequence.feed(prompt, 0)
    for each in (engine, fresh):
        await each.close()


async def test_the_planner_knows_what_need_not_be_prefilled(
    loaded: LoadedModel, turns: list[tuple[int, ...]]
) -> None:
    engine = TorchLocalEngine(loaded)
    profile = SpeedProfile("slow", "a test", 0.01, 0.001)
    client = DeviceClient(cloud=None, engine=engine, pace_s=1e-6, device_profile=profile)
    await client.start()
    ask = Ask("r", turns[1], 3, SAMPLING, mode=Mode.DEVICE_ONLY)
    before = client.session(ask).plan.first_token_s
    await _answer(client, turns[0], 2)
    new_tokens = len(turns[1]) - len(turns[0])
    assert before > 0.01 * len(turns[1]) * 0.99
    after = client.session(ask).plan.first_token_s
    assert after < before * (new_tokens + 20) / len(turns[1])
    await client.close()
