"""Engines with settings of their own, one after the other; no other vLLM may live meanwhile."""

import random
from pathlib import Path
from typing import Any

import pytest

from pd_core.errors import EngineDead, ModelError
from pd_core.sampling_params import SamplingParams
from tests.server_harness import prompt_of
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.engines import answers, blocks_in_use, request, run, torch_engine, vllm_engine

GREEDY = SamplingParams()
SAMPLED = SamplingParams(temperature=0.8, seed=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skip-v1")
    write_checkpoint(path, skip_v1=True)
    return path


def test_the_rolling_hash_is_the_torch_engine_s(directory: Path) -> None:
    requests = [
        request(i, prompt_of(40, i), 9, SamplingParams(seed=i, forced_length=9 - i))
        for i in range(3)
    ]
    with vllm_engine(directory, sampler="rolling-hash") as engine:
        assert engine.card.fingerprints.numerics_id == "rolling-hash"
        made = answers(engine, requests)
    assert made == answers(torch_engine(directory, "rolling-hash"), requests)


def test_more_than_the_cache_holds_is_preempted_and_comes_out_right(directory: Path) -> None:
    requests = [request(i, prompt_of(300, i), 120, SAMPLED) for i in range(4)]
    # Four of 420 tokens need 56 blocks; these are about 42.
    with vllm_engine(directory, kv_cache_mib=4, max_context_tokens=512) as small:
        assert small.backend.num_blocks < 56
        made = answers(small, requests)
        assert blocks_in_use(small) == 0
    assert made == answers(torch_engine(directory), requests)


def test_random_adds_stops_and_aborts_leave_no_block(directory: Path) -> None:
    chance = random.Random(7)
    with vllm_engine(directory, kv_cache_mib=4, max_context_tokens=512) as small:
        live: list[int] = []
        for i in range(300):
            if chance.random() < 0.5:
                prompt = prompt_of(chance.randrange(1, 380), chance.randrange(5))
                score = chance.random() < 0.3
                small.add_request(request(i, prompt, 130, SAMPLED, score_prompt=score))
                live.append(i)
            if live and chance.random() < 0.4:
                gone = live.pop(chance.randrange(len(live)))
                (small.stop if chance.random() < 0.5 else small.abort)(gone)
            small.step()
        for i in live:
            small.abort(i)
        run(small)
        assert not small.has_unfinished()
        assert blocks_in_use(small) == 0
        assert small.load().num_running == small.load().num_waiting == 0
        # And it still works.
        made = answers(small, [request(1000, prompt_of(40), 12, SAMPLED)])
    assert made == answers(torch_engine(directory), [request(1000, prompt_of(40), 12, SAMPLED)])


def test_a_cache_too_small_for_one_sequence_is_a_typed_error(directory: Path) -> None:
    with (
        pytest.raises(ModelError, match="max seq len"),
        vllm_engine(directory, kv_cache_mib=1),
    ):
        pass


def test_a_step_that_raises_is_the_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> Any:
        raise RuntimeError("out of luck")

    with vllm_engine(directory) as engine:
        engine.add_request(request(1, prompt_of(9), 5, GREEDY))
        backend: Any = engine.backend
        monkeypatch.setattr(backend.engine, "step", failing)
        with pytest.raises(EngineDead, match="RuntimeError"):
            engine.step()


def test_a_model_vllm_cannot_start_is_a_typed_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, head_dim=16)
    with pytest.raises(ModelError, match="head_dim=16"), vllm_engine(tmp_path):
        pass
