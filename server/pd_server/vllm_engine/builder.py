"""From settings to a `VllmEngine` that is ready to run."""

import logging
from dataclasses import replace
from fractions import Fraction
from textwrap import shorten

from pd_core.checkpoints.loading import DTYPES, read_fingerprints
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.errors import EngineError, ModelError, PdError
from pd_core.generation import ModelCard
from pd_core.grammar.grammars import Grammars
from pd_core.identity.fingerprint import numerics_id
from pd_core.models import ModelConfig
from pd_core.store.model_names import RANDOM_TINY, model_directory
from pd_server.config import EngineConfig
from pd_server.engine.contract import ScoreKind
from pd_server.vllm_engine.backend import Backend
from pd_server.vllm_engine.engine import KVCost, VllmEngine
from pd_server.vllm_engine.prompt_scoring import INSTEAD, score_kind
from pd_server.vllm_engine.settings import (
    VllmModel,
    check_model,
    check_version,
    engine_arguments,
)

__all__ = ["build_vllm_engine"]

logger = logging.getLogger(__name__)


def build_vllm_engine(config: EngineConfig, *, in_process: bool = False) -> VllmEngine:
    """Start vLLM on a checkpoint and return when it answers; that takes from seconds to minutes.

    Args:
        config: what runs, and how much of it at once.
        in_process: run it on the caller's thread, for tests; else in its own processes.

    Raises:
        ConfigError: vLLM is missing or has an unsupported version.
        ModelError: vLLM cannot serve the model; the message says why.
    """
    found = check_version()
    if config.model == RANDOM_TINY:
        raise ModelError(
            "random-tiny is no checkpoint, and its heads of 16 are too small for vLLM; give "
            "--model a Hugging Face directory, or use --engine torch"
        )
    directory = model_directory(config.model)
    files = ModelDirectory(directory)
    check_model(files.config, config.vllm.tensor_parallel_size)
    if not (files.checkpoint.has_embedding or files.config.skip_v1):
        raise ModelError(
            f"{files.name} stores its embedding as lm_head.weight alone, which vLLM does not read; "
            "use --engine torch"
        )
    # vLLM's numerics depend on the batch, so its id equals no other id, not even its own after a
    # restart.
    fingerprints = read_fingerprints(files, numerics_id(config.dtype, engine="vllm"))
    sampler = config.sampler
    if sampler != "model":
        fingerprints = replace(fingerprints, numerics_id=sampler)
    model = VllmModel(files.eos_token_ids, files.tokenizer.vocab_size, sampler)
    logger.info("starting vLLM %s on %s", found, files.name)
    backend = _start(config, str(directory), model, in_process=in_process)
    grammars = Grammars(files.tokenizer, files.tokenizer.vocab_size, files.eos_token_ids)
    grammars.prepare()
    context = config.vllm.max_context_tokens or files.config.max_context_tokens
    card = ModelCard(
        name=files.name,
        engine="vllm",
        fingerprints=fingerprints,
        eos_token_ids=files.eos_token_ids,
        vocab_size=files.tokenizer.vocab_size,
        max_context_tokens=context,
        sampler=sampler,
        grammar_library=grammars.library if sampler == "model" else "",
        logprobs=sampler == "model",
    )
    try:
        kv_cost = _kv_cost(config, files.config, backend)
        engine = VllmEngine(backend, card, config.max_num_seqs, kv_cost, grammars)
        if not engine.warm_up(min(64, context // 2)):
            logger.warning("vLLM's worker gives no prompt scores; %s", INSTEAD)
            backend.score_kind = ScoreKind.SELF_INFORMATION
    except EngineError as error:
        backend.close()
        raise ModelError(
            "vLLM has started, but failed on its first request, so it cannot run this model: "
            f"{error.__cause__ or error}; the log has more"
        ) from error
    except BaseException:
        backend.close()
        raise
    return engine


def _start(config: EngineConfig, directory: str, model: VllmModel, *, in_process: bool) -> Backend:
    """Start vLLM; whatever it raises becomes one error that names the reason.

    Raises:
        ModelError: it did not start.
    """
    from pd_server.vllm_engine.async_llm import AsyncBackend
    from pd_server.vllm_engine.in_process import InProcessBackend

    try:
        kind = score_kind(config)
        arguments = engine_arguments(config, directory, kind)
        return (InProcessBackend if in_process else AsyncBackend)(arguments, model, kind)
    except PdError:
        raise
    except Exception as error:  # vLLM's own have no common base
        logger.error("vLLM did not start", exc_info=error)
        reason = shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
        raise ModelError(f"vLLM did not start on this model: {reason}; the log has more") from error


def _kv_cost(config: EngineConfig, shape: ModelConfig, backend: Backend) -> KVCost:
    """Return the cost of a block; the unit layout saves exactly as much as the papers' formula."""
    from vllm.platforms import current_platform

    elements = Fraction(shape.plain_kv_elements())
    if config.vllm.kv_layout == "unit" and current_platform.is_cpu():
        elements *= 1 - shape.kv_saving()
    block_tokens = backend.block_tokens
    return KVCost(block_tokens, int(elements * block_tokens * DTYPES[config.dtype].itemsize))
