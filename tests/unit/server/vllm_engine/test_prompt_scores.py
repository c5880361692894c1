"""Prompt scores of the vLLM engine, as far as they need no vLLM."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pd_core.errors import ConfigError
from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention
from pd_server.config import EngineConfig, VllmConfig
from pd_server.vllm_engine.prompt_scoring import (
    mean_of_ranks,
    score_kind,
    self_information,
    window_may_be_cached,
)
from pd_server.vllm_plugin.prompt_scorer import Chunk, PromptScorer

HEADS, KV_HEADS, DIM = 4, 2, 8
SCALE = DIM**-0.5


def _prompt(num_tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries (n, 2 H, D) and keys (2 G, n, D) of a layer in two modules."""
    numbers = torch.Generator().manual_seed(seed)
    queries = torch.randn(num_tokens, 2 * HEADS, DIM, generator=numbers)
    return queries, torch.randn(2 * KV_HEADS, num_tokens, DIM, generator=numbers)


def _expected(queries: Tensor, keys: Tensor, num_tokens: int) -> list[float]:
    every = keys.repeat_interleave(queries.shape[1] // keys.shape[0], dim=0)[:, :num_tokens]
    window = queries[max(0, num_tokens - SCORE_WINDOW) : num_tokens]
    return mean_attention(torch.einsum("whd,hnd->hwn", window, every) * SCALE).tolist()


def _show(
    scorer: PromptScorer, name: str, prompt: tuple[Tensor, Tensor], first: int, end: int
) -> None:
    """Both modules see one chunk; the upper half of the heads is the second's."""
    queries, keys = prompt
    for part in range(2):
        if scorer.wanted(name):
            mine = keys[part * KV_HEADS : (part + 1) * KV_HEADS]
            chunk = queries[first:end, part * HEADS : (part + 1) * HEADS]
            scorer.observe(part, Chunk(name, first, chunk, lambda n, mine=mine: mine[:, :n]))  # type: ignore[misc]


def _scorer(max_results: int = 8) -> PromptScorer:
    return PromptScorer(2, SCALE, max_results)


@pytest.mark.parametrize("num_tokens", [1, 5, SCORE_WINDOW, 40])
@pytest.mark.parametrize("chunk", [1, 7, 33, 100])
def test_chunks_add_up(num_tokens: int, chunk: int) -> None:
    scorer, prompt = _scorer(), _prompt(num_tokens)
    scorer.begin("a", "tag", num_tokens)
    for first in range(0, num_tokens, chunk):
        assert scorer.take("tag") is None
        _show(scorer, "a", prompt, first, min(first + chunk, num_tokens))
    assert not scorer.wanted("a"), "nothing more is of use"
    assert scorer.take("tag") == pytest.approx(_expected(*prompt, num_tokens), abs=1e-6)
    assert scorer.take("tag") is None, "taken once"


def test_a_cached_prefix_before_the_window_does_no_harm() -> None:
    scorer, prompt = _scorer(), _prompt(60)
    scorer.begin("a", "tag", 60)
    _show(scorer, "a", prompt, 44, 60)
    assert scorer.take("tag") == pytest.approx(_expected(*prompt, 60), abs=1e-6)


def test_tokens_behind_the_prompt_are_not_its_window() -> None:
    scorer, prompt = _scorer(), _prompt(60)
    scorer.begin("a", "tag", 40)
    _show(scorer, "a", prompt, 0, 35)
    _show(scorer, "a", prompt, 35, 60)
    assert scorer.take("tag") == pytest.approx(_expected(*prompt, 40), abs=1e-6)


def test_a_preempted_prompt_may_come_again_in_other_chunks() -> None:
    scorer, prompt = _scorer(), _prompt(60)
    scorer.begin("a", "tag", 60)
    _show(scorer, "a", prompt, 0, 50)
    _show(scorer, "a", prompt, 0, 32)
    _show(scorer, "a", prompt, 48, 60)  # 32 .. 47 were cached meanwhile
    assert scorer.take("tag") == pytest.approx(_expected(*prompt, 60), abs=1e-6)


def test_a_window_with_a_hole_gives_no_scores(caplog: pytest.LogCaptureFixture) -> None:
    scorer, prompt = _scorer(), _prompt(60)
    scorer.begin("a", "tag", 60)
    _show(scorer, "a", prompt, 0, 10)
    _show(scorer, "a", prompt, 50, 60)
    assert scorer.take("tag") is None
    assert "no scores: the prefix cache had its last tokens" in caplog.text


def test_requests_do_not_mix() -> None:
    scorer, prompts = _scorer(), [_prompt(30, 1), _prompt(30, 2)]
    for i in range(2):
        scorer.begin(str(i), f"tag {i}", 30)
    for first in (0, 20):
        for i in range(2):
            _show(scorer, str(i), prompts[i], first, first + (20 if first == 0 else 10))
    for i in range(2):
        assert scorer.take(f"tag {i}") == pytest.approx(_expected(*prompts[i], 30), abs=1e-6)


def test_what_nobody_takes_is_dropped() -> None:
    scorer, prompt = _scorer(max_results=2), _prompt(3)
    for i in range(5):
        scorer.begin(str(i), f"tag {i}", 3)
        _show(scorer, str(i), prompt, 0, 3)
    scorer.begin("gone", "gone", 3)
    scorer.end(["gone", "unknown"])
    assert not scorer.wanted("gone")
    kept = [i for i in range(5) if scorer.take(f"tag {i}") is not None]
    assert kept == [3, 4], "the oldest go first"


@pytest.mark.parametrize(
    ("num_scored", "num_token_ids", "needed"),
    [
        (64, 64, False),  # at most one block of 32 is cached, and 48 may be
        (65, 65, True),  # two blocks
        (80, 80, False),
        (81, 81, False),
        (79, 79, True),
        (16, 16, False),
        (5, 33, True),  # committed tokens behind the prompt make its whole block cacheable
    ],
)
def test_whether_the_cache_could_have_the_window(
    num_scored: int, num_token_ids: int, needed: bool
) -> None:
    assert window_may_be_cached(num_scored, num_token_ids, 32) is needed


def test_ranks_have_equally_many_heads() -> None:
    assert mean_of_ranks([[0.5, 0.5], [0.25, 0.75]]) == (0.375, 0.625)
    assert mean_of_ranks([[1.0], None]) is None
    assert mean_of_ranks([None]) is None


def _logprobs(token_ids: Sequence[int], values: Sequence[float | None]) -> list[Any]:
    return [
        None if value is None else {token_id: SimpleNamespace(logprob=value)}
        for token_id, value in zip(token_ids, values, strict=True)
    ]


def test_self_information_is_shares_of_surprise() -> None:
    token_ids = (7, 8, 9, 5)
    found = _logprobs(token_ids, [None, -1.0, -3.0, -100.0])
    assert self_information(found, token_ids, 3) == pytest.approx((3 / 7, 1 / 7, 3 / 7))
    assert self_information(_logprobs((7,), [None]), (7,), 1) == (1.0,)
    certain = _logprobs((7, 8), [None, 0.0])
    assert self_information(certain, (7, 8), 2) == (0.5, 0.5)


def test_an_unknown_kind_of_score_is_refused() -> None:
    with pytest.raises(ConfigError, match="'loudness'; it must be one of attention, self-info"):
        score_kind(EngineConfig(engine="vllm", vllm=VllmConfig(prompt_scores="loudness")))
