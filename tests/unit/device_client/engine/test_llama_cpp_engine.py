"""The engine over llama.cpp: the same tokens however they are fed, prefixes kept, refusals."""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pd_core.errors import ConfigError, EngineError, ModelError, PromptTooLong
from pd_core.grammar.library import library_id
from pd_core.models import Segment
from pd_core.sampling.logprobs import token_logprobs
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.engine import llama_cpp_library
from pd_device_client.engine.llama_cpp_engine import LlamaCppEngine
from pd_device_client.engine.llama_cpp_library import library
from pd_device_client.engine.llama_cpp_loading import load_llama_cpp
from pd_device_client.engine.llama_cpp_model import LlamaCppModel
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.forms import FORMS
from tests.gguf_models import CONTEXT, TinyLlama, tiny_llama

PROFILE = SpeedProfile("test", "a test", 1e-6, 1e-6)
PROMPT = tuple((7 * i + 3) % 1000 for i in range(300))
SAMPLING = SamplingParams(temperature=0.8, seed=11, ignore_eos=True, repetition_penalty=1.3)
CLOSE = 0.05  # of logits whose spread is about 1: llama.cpp keeps keys and values in 16 bits
KEPT = 64 << 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    return tiny_llama(tmp_path_factory.mktemp("llama-cpp"))


def _engine(tiny: TinyLlama, kept_kv_bytes: int = 0, num_slots: int = 1) -> LlamaCppEngine:
    return load_llama_cpp(
        str(tiny.gguf), num_threads=1, num_slots=num_slots, kept_kv_bytes=kept_kv_bytes
    )[0]


async def _answer(
    engine: LlamaCppEngine,
    prompt: Sequence[int],
    cuts: int,
    length: int = 20,
    sampling: SamplingParams = SAMPLING,
) -> list[int]:
    """Feed a prompt's uncached part in passes of `cuts` tokens, then decode."""
    sequence = engine.open(sampling, prompt)
    pending = list(prompt[engine.cached_tokens(prompt) :])
    made: list[int] = []
    while len(made) < length:
        part, pending = pending[:cuts], pending[cuts:]
        token = await sequence.feed(part, None if pending else len(made))
        if token is not None:
            made.append(token)
            pending = [token]
    sequence.close()
    return made


def test_its_logits_are_those_of_our_engine_up_to_rounding(tiny: TinyLlama) -> None:
    ids, cache = list(PROMPT), tiny.model.make_cache(len(PROMPT))
    hidden = tiny.model.forward(torch.tensor(ids), [Segment(cache, 0, len(ids))])
    ours = tiny.model.logits(hidden[-1:])[0].numpy()
    model = LlamaCppModel(tiny.gguf, context_tokens=None, pass_tokens=64, num_threads=1)
    try:
        for cuts in (300, 37, 1):
            model.clear(0)
            for start in range(0, len(ids), cuts):
                part = ids[start : start + cuts]
                last = start + cuts >= len(ids)
                theirs = model.run(0, start, part, wants_logits=last)
            assert theirs is not None
            assert np.abs(theirs - ours).max() < CLOSE
    finally:
        model.close()


async def test_chunked_feeds_choose_the_tokens_of_one_pass(tiny: TinyLlama) -> None:
    engine = _engine(tiny)
    whole = await _answer(engine, PROMPT, len(PROMPT))
    for cuts in (128, 37, 1):
        assert await _answer(engine, PROMPT, cuts) == whole
    await engine.close()


async def test_its_logprobs_are_those_of_our_engine_up_to_rounding(tiny: TinyLlama) -> None:
    ids, cache = list(PROMPT), tiny.model.make_cache(len(PROMPT))
    hidden = tiny.model.forward(torch.tensor(ids), [Segment(cache, 0, len(ids))])
    engine = _engine(tiny)
    sequence = engine.open(replace(SAMPLING, logprobs=4), PROMPT)
    token_id = await sequence.feed(PROMPT, 0)
    assert token_id is not None
    told = sequence.logprobs
    assert told is not None
    (ours,) = token_logprobs(tiny.model.logits(hidden[-1:]), [token_id], [1000])
    assert told.logprob == pytest.approx(ours.logprob, abs=3 * CLOSE)
    expected = dict(zip(ours.top_ids, ours.top_logprobs, strict=True))
    assert [expected[i] for i in told.top_ids] == pytest.approx(told.top_logprobs, abs=3 * CLOSE)
    sequence.close()
    silent = engine.open(SAMPLING, PROMPT)
    assert await silent.feed(PROMPT, 0) == token_id
    assert silent.logprobs is None
    silent.close()
    await engine.close()


async def test_a_kept_prefix_saves_its_tokens_and_changes_none(tiny: TinyLlama) -> None:
    engine, plain = _engine(tiny, KEPT), _engine(tiny)
    first = await _answer(engine, PROMPT, 128)
    assert first == await _answer(plain, PROMPT, 128)
    turn = (*PROMPT, *first[:-1], 5, 6, 7)
    assert engine.cached_tokens(turn) == len(PROMPT) + len(first) - 1
    other = (*PROMPT[:200], 9, 9, 9)
    assert engine.cached_tokens(other) == 200
    for prompt in (turn, other, turn):
        assert await _answer(engine, prompt, 128) == await _answer(plain, prompt, 128)
    await engine.close()
    await plain.close()


async def test_two_sequences_at_a_time_do_not_see_each_other(tiny: TinyLlama) -> None:
    engine = _engine(tiny, num_slots=2)
    prompts = [PROMPT[:100], PROMPT[50:180]]
    alone = [await _answer(engine, prompt, 37) for prompt in prompts]
    together = await asyncio.gather(*(_answer(engine, prompt, 37) for prompt in prompts))
    assert together == alone
    third = engine.open(SAMPLING)
    held = [engine.open(SAMPLING) for _ in range(2)]
    for sequence in held:
        await sequence.feed([1], 0)
    with pytest.raises(EngineError):
        await third.feed([1], 0)
    held[0].close()
    assert await third.feed([1], 0) is not None
    await engine.close()


async def test_a_cancelled_pass_leaves_a_prefix_that_holds(tiny: TinyLlama) -> None:
    engine, plain = _engine(tiny, KEPT), _engine(tiny)
    sequence = engine.open(SAMPLING, PROMPT)
    await sequence.feed(PROMPT[:100], None)
    feeding = asyncio.ensure_future(sequence.feed(PROMPT[100:200], None))
    await asyncio.sleep(0)
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    sequence.close()
    assert engine.cached_tokens(PROMPT) == 100
    assert await _answer(engine, PROMPT, 128) == await _answer(plain, PROMPT, 128)
    await engine.close()
    await plain.close()


async def test_a_whole_session_runs_on_it(tiny: TinyLlama) -> None:
    engine = _engine(tiny, KEPT)
    client = DeviceClient(cloud=None, engine=engine, pace_s=1e-6, device_profile=PROFILE)
    await client.start()
    session = client.session(Ask("r", PROMPT, 12, SAMPLING, mode=Mode.DEVICE_ONLY))
    async for _ in session.run():
        pass
    assert session.outcome.token_ids == await _answer(engine, PROMPT, 128, 12)
    assert "fast" in engine.card.fingerprints.numerics_id  # equal to no other
    await client.close()


def test_a_context_shorter_than_a_pass_is_kept_to(tiny: TinyLlama) -> None:
    model = LlamaCppModel(tiny.gguf, context_tokens=40, pass_tokens=128, num_threads=1)
    assert model.run(0, 0, PROMPT[:40], wants_logits=True) is not None
    with pytest.raises(EngineError, match="41 tokens"):
        model.run(0, 40, [1], wants_logits=True)
    model.close()


async def test_more_tokens_than_the_context_holds_are_refused(tiny: TinyLlama) -> None:
    engine = _engine(tiny)
    sequence = engine.open(SAMPLING)
    assert engine.card.max_context_tokens == CONTEXT
    with pytest.raises(PromptTooLong):
        await sequence.feed([1] * (CONTEXT + 1), 0)
    assert await sequence.feed([1] * CONTEXT, 0) is not None
    await engine.close()


def test_what_cannot_be_loaded_is_refused_by_its_cause(tiny: TinyLlama, tmp_path: Path) -> None:
    content = tiny.gguf.read_bytes()
    broken = {"truncated.gguf": content[: len(content) // 2], "other.gguf": b"PK" + content[2:]}
    broken["empty.gguf"] = b""
    for name, part in broken.items():
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ModelError, match=name):
            LlamaCppModel(tmp_path / name, context_tokens=None, pass_tokens=8, num_threads=1)
    with pytest.raises(ModelError, match="no file"):
        LlamaCppModel(tmp_path / "none", context_tokens=None, pass_tokens=8, num_threads=1)
    with pytest.raises(ModelError, match="none"):
        load_llama_cpp(str(tmp_path))
    with pytest.raises(ModelError, match=str(CONTEXT)):
        load_llama_cpp(str(tiny.gguf), context_tokens=CONTEXT + 1)


def test_too_little_memory_is_refused_before_it_is_taken(tiny: TinyLlama) -> None:
    size = tiny.gguf.stat().st_size
    for there, what in ((size, "weights"), (2 * size, "context")):
        with pytest.raises(ModelError, match=what):
            LlamaCppModel(
                tiny.gguf,
                context_tokens=None,
                num_slots=64,
                pass_tokens=8,
                num_threads=1,
                available=partial(int, there),
            )


async def test_nothing_is_said_on_standard_error(
    tiny: TinyLlama, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        engine = _engine(tiny)
        await _answer(engine, PROMPT, 128, 3)
        await engine.close()
    assert capfd.readouterr() == ("", "")
    assert any(r.levelno == logging.DEBUG and "llama" in r.message for r in caplog.records)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setattr(llama_cpp_library, "is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"pd-device\[llama-cpp\]"):
        load_llama_cpp("model.gguf")
    library.cache_clear()


async def test_an_answer_has_the_form_asked_for(tiny: TinyLlama) -> None:
    engine = _engine(tiny)
    assert engine.card.grammar_library == library_id()
    form = SamplingParams(temperature=0.8, seed=3, constraint=FORMS["regex"])
    made = await _answer(engine, PROMPT[:40], 16, 12, form)
    eos = engine.served.eos_token_ids
    text = engine.served.tokenizer.decode([token for token in made if token not in eos])
    assert re.fullmatch("[0-9]{3}-(yes|no|é{1,3})", text)
    await engine.close()
