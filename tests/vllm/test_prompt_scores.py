"""Prompt scores from vLLM against the plain computation on the torch model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.models import Segment
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import PromptScored, ScoreKind, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.vllm_engine.engine import VllmEngine
from tests.server_harness import prompt_of
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.engines import blocks_in_use, request, vllm_engine
from tests.vllm.slow_scores import expected_scores

TOLERANCE = 1e-5
# Shorter than the window, as long as it, with a last chunk (of 128) and a last block (of 32) that
# are shorter, and longer than two steps' budgets.
PROMPT_LENGTHS = (1, 5, 16, 40, 130, 200, 333)
SAMPLED = SamplingParams(temperature=0.8, seed=11, ignore_eos=True)

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "plain heads of 80": ({"head_dim": 80, "num_heads": 8}, {"kv_cache_mib": 64}),
    "unit": ({"skip_v1": True}, {}),
    "unit, GQA, Qwen3": ({"skip_v1": True, "num_heads": 8, "family": "qwen3"}, {}),
    "unit, YOCO, blocks of 128": (
        {"skip_v1": True, "skip_v1_k_source": 1},
        {"block_tokens": None},
    ),
    "unit, compiled": ({"skip_v1": True}, {"eager": False}),
    "naive": ({"skip_v1": True}, {"kv_layout": "naive"}),
}


def _run(
    engine: VllmEngine, requests: Sequence[LiveRequest]
) -> tuple[dict[int, PromptScored], dict[int, list[int]]]:
    """Scores and tokens of requests that run together; scores come once, and not last."""
    scored: dict[int, PromptScored] = {}
    made: dict[int, list[int]] = {}
    for one in requests:
        engine.add_request(one)
    while engine.has_unfinished():
        for event in engine.step():
            if isinstance(event, PromptScored):
                assert event.request_id not in scored
                assert event.request_id in made, "the first token need not wait"
                scored[event.request_id] = event
            elif isinstance(event, TokensMade):
                made.setdefault(event.request_id, []).extend(event.token_ids)
    return scored, made


def _requests(first_id: int, *, score: bool, limit: int = 9) -> list[LiveRequest]:
    return [
        request(first_id + i, prompt_of(length, i), limit, SAMPLED, score_prompt=score)
        for i, length in enumerate(PROMPT_LENGTHS)
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_scores_are_the_definition_s(name: str, tmp_path: Path) -> None:
    shape, settings = SHAPES[name]
    write_checkpoint(tmp_path, **shape)
    lm = load_model(str(tmp_path), fast=True)
    expected = [
        expected_scores(lm, prompt_of(length, i)) for i, length in enumerate(PROMPT_LENGTHS)
    ]
    with vllm_engine(tmp_path, **settings) as engine:
        fresh, made = _run(engine, _requests(0, score=True))
        again, made_again = _run(engine, _requests(100, score=True, limit=1))
        _, unscored = _run(engine, _requests(200, score=False))
        assert engine.load().prefix_hit_tokens > 0, "the second round read the cache"
        assert blocks_in_use(engine) == 0
    for round_, first_id in ((fresh, 0), (again, 100)):
        assert sorted(round_) == [first_id + i for i in range(len(expected))]
        for i, scores in enumerate(expected):
            event = round_[first_id + i]
            assert event.kind is ScoreKind.ATTENTION
            assert (torch.tensor(event.scores) - scores).abs().max() < TOLERANCE
            assert sum(event.scores) == pytest.approx(1.0, abs=TOLERANCE)
    assert list(made.values()) == list(unscored.values()), "scoring changes no token"
    assert [tokens[:1] for tokens in made.values()] == list(made_again.values())


def test_committed_tokens_have_no_scores_and_change_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, skip_v1=True)
    prompt = prompt_of(100)
    expected = expected_scores(load_model(str(tmp_path), fast=True), prompt)
    with vllm_engine(tmp_path) as engine:
        fields: dict[str, Any] = {"num_committed_tokens": 60, "first_position": 60}
        one = request(1, [*prompt, *prompt_of(60, 9)], 70, SAMPLED, score_prompt=True, **fields)
        scored, _ = _run(engine, [one])
        # A limit raised while it runs is a further request to vLLM, which scores nothing again.
        engine.add_request(request(2, prompt, 3, SAMPLED, score_prompt=True))
        kinds = [type(event) for event in engine.step()]
        engine.extend(2, 8)
        while engine.has_unfinished():
            kinds += [type(event) for event in engine.step()]
    assert (torch.tensor(scored[1].scores) - expected).abs().max() < TOLERANCE
    assert kinds.count(PromptScored) == 1
    assert kinds.count(TokensMade) == 8


def test_preempted_prompts_keep_their_scores(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, skip_v1=True)
    lm = load_model(str(tmp_path), fast=True)
    prompts = [prompt_of(300, i) for i in range(4)]
    requests = [
        request(i, prompt, 120, SAMPLED, score_prompt=True) for i, prompt in enumerate(prompts)
    ]
    # Four of 420 tokens need 56 blocks; these are about 42.
    with vllm_engine(tmp_path, kv_cache_mib=4, max_context_tokens=512) as small:
        assert small.backend.num_blocks < 56
        scored, _ = _run(small, requests)
    for i, prompt in enumerate(prompts):
        difference = torch.tensor(scored[i].scores) - expected_scores(lm, prompt)
        assert difference.abs().max() < TOLERANCE


def test_aborted_requests_leave_nothing_behind(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with vllm_engine(tmp_path) as engine:
        for i in range(12):
            engine.add_request(request(i, prompt_of(300, i), 5, SAMPLED, score_prompt=True))
            engine.step()  # a third of the prompt
            engine.abort(i)
        scored, _ = _run(engine, _requests(100, score=True))
        assert len(scored) == len(PROMPT_LENGTHS)
        core: Any = engine.backend.engine.engine_core.engine_core  # type: ignore[attr-defined]
        scorer = core.model_executor.driver_worker.worker._scorer
        # vLLM tells of the last ones' end with its next step.
        assert set(scorer._requests) == set()
        assert scorer._results == {}


@pytest.mark.parametrize("settings", [{"prompt_scores": "self-information"}, {}])
def test_self_information_is_the_fallback_and_says_so(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_checkpoint(tmp_path, skip_v1=True)
    if not settings:
        from pd_server.vllm_plugin.scoring_worker import ScoringCPUWorker

        monkeypatch.setattr(ScoringCPUWorker, "_scored_modules", lambda _: [])
    lm = load_model(str(tmp_path), fast=True)
    with vllm_engine(tmp_path, **settings) as engine:
        scored, made = _run(engine, _requests(0, score=True))
        _, unscored = _run(engine, _requests(100, score=False))
    assert list(made.values()) == list(unscored.values())
    assert ("scored by self-information instead of attention" in caplog.text) is (not settings)
    for i, length in enumerate(PROMPT_LENGTHS):
        event = scored[i]
        assert event.kind is ScoreKind.SELF_INFORMATION
        prompt = torch.tensor(prompt_of(length, i))
        cache = lm.model.make_cache(length)
        logits = lm.model.logits(lm.model.forward(prompt, [Segment(cache, 0, length)]))
        surprise = -logits[:-1].log_softmax(1).gather(1, prompt[1:, None])[:, 0]
        largest = surprise.max() if len(surprise) else torch.tensor(1.0)
        surprise = torch.cat((largest[None], surprise))
        assert (torch.tensor(event.scores) - surprise / surprise.sum()).abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("block_tokens", "head_dim"), [(32, 32), (128, 64), (64, 80), (128, 128)])
def test_keys_are_read_as_they_were_written(
    block_tokens: int, head_dim: int, dtype: torch.dtype
) -> None:
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    from pd_server.vllm_plugin.key_layout import KeyLayout

    isa = _get_attn_isa(dtype, block_tokens, head_dim)
    num_tokens, block_ids = 2 * block_tokens + 7, torch.tensor([4, 1, 3])
    keys = torch.randn(num_tokens, 2, head_dim).to(dtype)
    cache = torch.zeros(5, 2, block_tokens, head_dim, dtype=dtype)
    position = torch.arange(num_tokens)
    slots = block_ids[position // block_tokens] * block_tokens + position % block_tokens
    ops.cpu_attn_reshape_and_cache(keys, keys, cache, torch.zeros_like(cache), slots, isa)
    layout = KeyLayout(block_tokens, head_dim, dtype, isa)
    assert torch.equal(layout.read(cache, block_ids, num_tokens), keys.transpose(0, 1))


def test_scores_come_from_vllm_s_own_processes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, skip_v1=True)
    lm = load_model(str(tmp_path), fast=True)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with vllm_engine(tmp_path, in_process=False) as engine:
        assert type(engine.backend).__name__ == "AsyncBackend"
        for limit in (1, 9):  # one ends with the token that the scores come with
            scored, made = _run(engine, _requests(10 * limit, score=True, limit=limit))
            for i, length in enumerate(PROMPT_LENGTHS):
                difference = torch.tensor(scored[10 * limit + i].scores) - expected_scores(
                    lm, prompt_of(length, i)
                )
                assert difference.abs().max() < TOLERANCE
                assert len(made[10 * limit + i]) == limit
