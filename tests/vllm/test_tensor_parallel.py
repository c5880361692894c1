"""SkipV1 over two ranks, each a process with one core, against the torch engine."""

import os
from pathlib import Path

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import PromptScored, TokensMade
from tests.server_harness import prompt_of
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.engines import answers, request, torch_engine, vllm_engine
from tests.vllm.slow_scores import expected_scores

SAMPLED = SamplingParams(temperature=0.8, seed=11)


@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 8},
        {"skip_v1_k_source": 1},
        {"hidden_size": 192, "num_heads": 12, "num_kv_heads": 6, "skip_v1_own": 4},
    ],
    ids=["gqa", "yoco", "four-of-six"],
)
def test_two_ranks_answer_and_score_as_one(
    shape: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("two ranks need two cores")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[1]}")
    write_checkpoint(tmp_path, skip_v1=True, **shape)
    prompts = [prompt_of(length, i) for i, length in enumerate((5, 40, 200))]
    requests = [
        request(i, prompt, 12, SAMPLED, score_prompt=True) for i, prompt in enumerate(prompts)
    ]
    made: dict[int, list[int]] = {}
    scored: dict[int, PromptScored] = {}
    with vllm_engine(tmp_path, in_process=False, tensor_parallel_size=2) as engine:
        for one in requests:
            engine.add_request(one)
        while engine.has_unfinished():
            for event in engine.step():
                if isinstance(event, TokensMade):
                    made.setdefault(event.request_id, []).extend(event.token_ids)
                elif isinstance(event, PromptScored):
                    scored[event.request_id] = event
    assert made == answers(torch_engine(tmp_path), requests)
    lm = load_model(str(tmp_path), fast=True)
    for i, prompt in enumerate(prompts):
        difference = torch.tensor(scored[i].scores) - expected_scores(lm, prompt)
        assert difference.abs().max() < 1e-5
