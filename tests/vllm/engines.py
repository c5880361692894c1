"""Engines of ours for one test: vLLM in this process, and the torch engine beside it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pd_core.checkpoints.loading import load_model
from pd_core.generation import Finished
from pd_core.sampling_params import SamplingParams
from pd_server.config import EngineConfig, VllmConfig
from pd_server.engine.contract import (
    Engine,
    RequestFailed,
    RequestFinished,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest
from pd_server.torch_engine.engine import TorchEngine
from pd_server.vllm_engine.builder import build_vllm_engine
from pd_server.vllm_engine.engine import VllmEngine

__all__ = ["answers", "blocks_in_use", "request", "run", "torch_engine", "vllm_engine"]


@contextmanager
def vllm_engine(
    directory: Path, *, sampler: str = "model", in_process: bool = True, **settings: Any
) -> Iterator[VllmEngine]:
    """A small engine on a checkpoint, closed at the end."""
    kv_cache_mib = settings.pop("kv_cache_mib", 16)
    settings = {"block_tokens": 32, "eager": True} | settings
    config = EngineConfig(
        model=str(directory),
        max_num_seqs=4,
        max_num_batched_tokens=128,
        kv_cache_mib=kv_cache_mib,
        engine="vllm",
        sampler=sampler,
        vllm=VllmConfig(**settings),
    )
    engine = build_vllm_engine(config, in_process=in_process)
    try:
        yield engine
    finally:
        engine.close()


def torch_engine(directory: Path, sampler: str = "model") -> TorchEngine:
    """The embedded engine on the same checkpoint."""
    return TorchEngine(load_model(str(directory), fast=True), 4, 128, sampler)


def request(
    request_id: int, prompt: Sequence[int], limit: int, sampling: SamplingParams, **fields: Any
) -> LiveRequest:
    """A request that has just arrived."""
    all_fields: dict[str, Any] = {"num_committed_tokens": 0, "first_position": 0} | fields
    return LiveRequest(
        request_id=request_id,
        token_ids=list(prompt),
        token_limit=limit,
        sampling=sampling,
        arrived_at_s=time.perf_counter(),
        **all_fields,
    )


def run(
    engine: Engine, made: dict[int, list[int]] | None = None, within_s: float = 600.0
) -> dict[int, Finished | Exception]:
    """Step until nothing is left; return how each request ended, and add its tokens to `made`."""
    ends: dict[int, Finished | Exception] = {}
    deadline = time.perf_counter() + within_s
    while engine.has_unfinished():
        assert time.perf_counter() < deadline, "the engine does not come to an end"
        for event in engine.step():
            match event:
                case TokensMade(request_id, _, token_ids):
                    if made is not None:
                        made.setdefault(request_id, []).extend(token_ids)
                case RequestFinished(request_id, finished):
                    ends[request_id] = finished
                case RequestFailed(request_id, error):
                    ends[request_id] = error
    return ends


def answers(engine: Engine, requests: Sequence[LiveRequest]) -> dict[int, list[int]]:
    """Run requests together and return their tokens; each is run anew, as it first came."""
    made: dict[int, list[int]] = {}
    for one in requests:
        engine.add_request(replace(one, token_ids=one.token_ids[: one.num_prefix_tokens]))
    run(engine, made)
    return made


def blocks_in_use(engine: VllmEngine) -> int:
    """Blocks of vLLM's cache that a request holds."""
    core: Any = engine.backend.engine.engine_core.engine_core  # type: ignore[attr-defined]
    pool = core.scheduler.kv_cache_manager.block_pool
    # One block is vLLM's own: the place for nothing.
    return int(pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())
