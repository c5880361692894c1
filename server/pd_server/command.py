"""The command `pd-server`: from its settings to a server that runs."""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from pd_core.host.cpu import cores_in_words, num_cores
from pd_core.process.quick_imports import quick_imports
from pd_core.settings.command import add_command
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Program, Read
from pd_server.config import EngineConfig, ServerConfig
from pd_server.engine.contract import Engine
from pd_server.operations.logs import configure_logging

__all__ = ["app"]

logger = logging.getLogger(__name__)

# Between kernels the engine's thread runs Python, and the event loop waits for it to yield: by
# default 5 ms each time, half a step of a small model.
_SWITCH_INTERVAL_S = 0.0002


@dataclass(frozen=True, slots=True)
class _Settings:
    """A server, and how its process speaks."""

    server: Annotated[ServerConfig, Part()] = field(default_factory=ServerConfig)
    ready_file: Annotated[
        Path | None,
        Option("When serving, write the addresses and the process id here, as JSON."),
    ] = None
    log_level: Annotated[
        str,
        Option("Least severe records logged.", choices=("debug", "info", "warning", "error")),
    ] = "info"
    log_json: Annotated[bool, Option("Log JSON lines.")] = False


def _serve(settings: _Settings, _: Read) -> None:
    """Serve the cloud half of P/D-Device: gRPC for devices, HTTP for operators.

    SIGTERM or SIGINT drains: new requests are refused, running ones end.

    A second one stops at once.
    """
    configure_logging(settings.log_level, settings.log_json)
    logger.info("this process may use %s", cores_in_words())
    config = settings.server
    vllm = replace(config.engine.vllm, max_context_tokens=config.max_context_tokens)
    engine = _engine_builder(replace(config.engine, vllm=vllm))
    with quick_imports():  # only now: --help and a bad option need not wait for the imports
        from pd_server.process import run_server

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    raise typer.Exit(asyncio.run(run_server(config, engine, settings.ready_file)))


def _engine_builder(config: EngineConfig) -> Callable[[], Engine]:
    """Return a function that loads the model; neither torch nor vLLM is imported before it runs."""

    def build_vllm() -> Engine:
        from pd_server.vllm_engine.builder import build_vllm_engine

        return build_vllm_engine(config)

    def build_torch() -> Engine:
        from pd_core.host.torch_environment import prepare_environment

        prepare_environment(fast=config.fast_numerics)  # before torch is imported
        with quick_imports():
            import torch

            from pd_core.checkpoints.loading import load_model
            from pd_core.checkpoints.memory_need import check_memory
            from pd_server.torch_engine.best_threads import use_best_threads
            from pd_server.torch_engine.engine import TorchEngine

        torch.set_num_threads(config.threads or _default_threads(torch.get_num_threads()))
        files = None
        if config.device == "cpu":  # a GPU's memory is its own
            files = check_memory(
                config.model,
                config.kv_cache_bytes or 0,
                config.numerics,
                dtype=config.dtype,
                fast=config.fast_numerics,
                kept_for="KV caches",
                mend="--kv-cache-mib",
            )
        lm = load_model(
            config.model,
            dtype=config.dtype,
            device=config.device,
            fast=config.fast_numerics,
            numerics=config.numerics,
            files=files,
        )
        del files  # of the model there is all in memory
        if config.threads is None and config.device == "cpu":
            use_best_threads(lm, config.max_num_seqs)
        return TorchEngine(
            lm,
            config.max_num_seqs,
            config.max_num_batched_tokens,
            config.sampler,
            config.kv_cache_bytes,
            config.speculate,
            config.decode_gap_s,
        )

    return build_vllm if config.engine == "vllm" else build_torch


def _default_threads(torch_threads: int) -> int:
    """Return torch's own choice, but leave a core to the event loop.

    When both compete for a core, every short operator waits for it: on two cores a decode step of
    a small model took 2.5 ms with two threads and 1.2 ms with one.
    """
    return max(1, min(torch_threads, num_cores() - 1))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
add_command(app, _serve, _Settings, Program("pd-server"), "pd-server")
