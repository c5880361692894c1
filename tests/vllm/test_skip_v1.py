"""SkipV1 models in vLLM against the torch model, logits for logits.

Prompts are longer than a step's budget (chunked prefill) and are asked twice (prefix cache).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pd_core.checkpoints.loading import load_model
from pd_core.models import Segment
from tests.vllm.checkpoints import write_checkpoint

TOLERANCE = 1e-4
PROMPT_LENGTHS = (5, 40, 200, 333)
BLOCK_TOKENS = 32
NUM_NEW = 12

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"skip_v1": True},
    "llama-biases": {"skip_v1": True, "attention_bias": True, "mlp_bias": True},
    "gqa": {"skip_v1": True, "num_heads": 8},
    "qwen2": {"skip_v1": True, "family": "qwen2", "tie_word_embeddings": False},
    "qwen3": {"skip_v1": True, "family": "qwen3", "num_heads": 8},
    "yoco": {"skip_v1": True, "skip_v1_k_source": 1},
    "three-of-four": {"skip_v1": True, "skip_v1_own": 3, "num_heads": 8},
    "two-of-three": {
        "skip_v1": True,
        "skip_v1_own": 2,
        "num_heads": 9,
        "num_kv_heads": 3,
        "family": "qwen2",
    },
    "yoco-one-of-three": {
        "skip_v1": True,
        "skip_v1_own": 1,
        "skip_v1_k_source": 1,
        "num_heads": 6,
        "num_kv_heads": 3,
        "family": "qwen3",
    },
    "yoco-qwen3": {"skip_v1": True, "skip_v1_k_source": 1, "family": "qwen3"},
}


def _prompts() -> list[list[int]]:
    return [
        [2 + (7 * i + 13 * salt) % 900 for i in range(length)]
        for salt, length in enumerate(PROMPT_LENGTHS)
    ]


def _start(directory: Path, *, layout: str = "unit", eager: bool = True) -> Any:
    """vLLM itself, with logits instead of log-probabilities."""
    from vllm import LLM

    return LLM(
        str(directory),
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=eager,
        block_size=BLOCK_TOKENS,
        kv_cache_memory_bytes=32 << 20,
        max_num_batched_tokens=128,
        max_num_seqs=4,
        logprobs_mode="raw_logits",
        max_logprobs=-1,
        additional_config={"skip_v1_kv_layout": layout},
    )


def _answer(llm: Any) -> list[tuple[list[int], Tensor, int]]:
    """Token ids, logits (tokens, V) and cached prompt tokens of every prompt's answer."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0, max_tokens=NUM_NEW, ignore_eos=True, detokenize=False, logprobs=-1
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in _prompts()]
    answers = []
    for output in llm.generate(prompts, params, use_tqdm=False):
        steps = output.outputs[0].logprobs
        rows = [[step[i].logprob for i in range(len(step))] for step in steps]
        answers.append(
            (list(output.outputs[0].token_ids), torch.tensor(rows), output.num_cached_tokens)
        )
    return answers


def _check(directory: Path, answers: list[tuple[list[int], Tensor, int]]) -> None:
    """Logits within the tolerance; the most likely token wherever the top two differ by more."""
    lm = load_model(str(directory), fast=True)
    for prompt, (token_ids, logits, _) in zip(_prompts(), answers, strict=True):
        whole = torch.tensor(prompt + token_ids)
        cache = lm.model.make_cache(len(whole))
        hidden = lm.model.forward(whole, [Segment(cache, 0, len(whole))])
        expected = lm.model.logits(hidden[len(prompt) - 1 : -1])
        assert (expected - logits).abs().max() < TOLERANCE
        first, second = expected.topk(2).values.unbind(1)
        clear = first - second > TOLERANCE
        assert clear.any()
        assert torch.equal(expected.argmax(1)[clear], torch.tensor(token_ids)[clear])


@pytest.mark.parametrize("name", SHAPES)
def test_the_unit_layout_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, **SHAPES[name])
    llm = _start(tmp_path)
    fresh, again = _answer(llm), _answer(llm)
    _check(tmp_path, fresh)
    _check(tmp_path, again)
    hits = [(length - 1) // BLOCK_TOKENS * BLOCK_TOKENS for length in PROMPT_LENGTHS]
    assert [cached for _, _, cached in fresh] == [0] * len(hits)
    assert [cached for _, _, cached in again] == hits


@pytest.mark.parametrize("name", ["llama", "two-of-three", "yoco-qwen3"])
def test_the_naive_layout_computes_what_torch_computes(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, **SHAPES[name])
    llm = _start(tmp_path, layout="naive")
    assert "without its saving: the settings ask for it" in caplog.text
    _check(tmp_path, _answer(llm))
    _check(tmp_path, _answer(llm))


def test_a_compiled_model_computes_what_torch_computes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, **SHAPES["yoco-qwen3"])
    llm = _start(tmp_path, eager=False)
    _check(tmp_path, _answer(llm))
    _check(tmp_path, _answer(llm))


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, **SHAPES["llama"])
    with pytest.raises(Exception, match="skip_v1_kv_layout is 'half'; it must be one of unit"):
        _start(tmp_path, layout="half")
