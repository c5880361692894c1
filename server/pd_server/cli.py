"""The command `pd-server`: settings from flags and environment."""

import asyncio
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pd_core.errors import ConfigError, PdError, status_of
from pd_core.host.api_key import checked_api_key, read_api_key
from pd_core.host.cpu import num_cores
from pd_core.host.quick_imports import quick_imports
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_server.config import EngineConfig, ServerConfig, TlsConfig, VllmConfig
from pd_server.engine.contract import Engine
from pd_server.operations.logs import configure_logging

__all__ = ["main"]

# The engine's thread is in Python between kernels, and the event loop waits for it to give way:
# by default 5 ms each time, half a step of a small model.
_SWITCH_INTERVAL_S = 0.0002


class EngineKind(StrEnum):
    """What runs the model."""

    TORCH = "torch"
    VLLM = "vllm"


class Sampler(StrEnum):
    """How tokens are chosen."""

    MODEL = "model"
    ROLLING_HASH = "rolling-hash"


class Dtype(StrEnum):
    """Number formats of weights and KV cache."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class LogLevel(StrEnum):
    """The least severe records that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _env(name: str) -> str:
    return f"PD_SERVER_{name}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pd-server {version('pd-device')}")
        raise typer.Exit


def serve(
    model: Annotated[str, typer.Option(envvar=_env("MODEL"), help=MODEL_HELP)] = DEFAULT_MODEL,
    engine: Annotated[
        EngineKind, typer.Option(envvar=_env("ENGINE"), help="vllm: see docs/vllm.md.")
    ] = EngineKind.TORCH,
    dtype: Annotated[
        Dtype, typer.Option(envvar=_env("DTYPE"), help="Of weights and KV cache.")
    ] = Dtype.FLOAT32,
    device: Annotated[
        str,
        typer.Option(
            envvar=_env("DEVICE"),
            help="Where the model runs: cpu, cuda, cuda:1; vLLM's build decides for itself.",
        ),
    ] = "cpu",
    host: Annotated[
        str, typer.Option(envvar=_env("HOST"), help="Address to listen on.")
    ] = "127.0.0.1",
    grpc_port: Annotated[
        int, typer.Option(envvar=_env("GRPC_PORT"), min=0, max=65535, help="0 picks a free one.")
    ] = 50051,
    http_port: Annotated[
        int, typer.Option(envvar=_env("HTTP_PORT"), min=0, max=65535, help="0 picks a free one.")
    ] = 8080,
    max_num_seqs: Annotated[
        int, typer.Option(envvar=_env("MAX_NUM_SEQS"), min=1, help="Requests decoded together.")
    ] = 8,
    max_num_waiting: Annotated[
        int,
        typer.Option(
            envvar=_env("MAX_NUM_WAITING"), min=0, help="Requests queued before new are refused."
        ),
    ] = 64,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(
            envvar=_env("MAX_NUM_BATCHED_TOKENS"),
            min=2,
            help="Tokens in one step, prefill and decodes together; measured if unset.",
        ),
    ] = None,
    kv_cache_mib: Annotated[
        int | None,
        typer.Option(
            envvar=_env("KV_CACHE_MIB"),
            min=1,
            help="Memory for KV caches and cached prefixes; if unset, by slots and context.",
        ),
    ] = None,
    max_context_tokens: Annotated[
        int | None,
        typer.Option(
            envvar=_env("MAX_CONTEXT_TOKENS"),
            min=2,
            help="Prompt and response together; the model's when not given.",
        ),
    ] = None,
    max_output_tokens: Annotated[
        int | None,
        typer.Option(
            envvar=_env("MAX_OUTPUT_TOKENS"), min=1, help="Highest token limit of a request."
        ),
    ] = None,
    max_tokens_in_flight: Annotated[
        int | None,
        typer.Option(
            envvar=_env("MAX_TOKENS_IN_FLIGHT"),
            min=1,
            help="Prompts and token limits of all admitted requests together.",
        ),
    ] = None,
    sampler: Annotated[
        Sampler,
        typer.Option(
            envvar=_env("SAMPLER"), help="rolling-hash is for fleet measurements (labelled so)."
        ),
    ] = Sampler.MODEL,
    threads: Annotated[
        int | None,
        typer.Option(
            envvar=_env("THREADS"), min=1, help="Threads of torch; all cores but one if unset."
        ),
    ] = None,
    fast_numerics: Annotated[
        bool,
        typer.Option(
            "--fast-numerics", envvar=_env("FAST_NUMERICS"), help="Faster, not bit-reproducible."
        ),
    ] = False,
    tensor_parallel_size: Annotated[
        int,
        typer.Option(
            envvar=_env("TENSOR_PARALLEL_SIZE"), min=1, help="vllm: GPUs that share each layer."
        ),
    ] = 1,
    eager: Annotated[
        bool,
        typer.Option(
            "--eager",
            envvar=_env("EAGER"),
            help="vllm: do not compile; starts sooner, runs slower.",
        ),
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar=_env("INSECURE"),
            help="Listen beyond loopback without TLS or without a key.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar=_env("TLS_CERT"), help="PEM certificate chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar=_env("TLS_KEY"), help="PEM private key.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("API_KEY_FILE"), help="File with the bearer key (or PD_SERVER_API_KEY)."
        ),
    ] = None,
    reflection: Annotated[
        bool,
        typer.Option("--reflection", envvar=_env("REFLECTION"), help="Offer gRPC reflection."),
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("READY_FILE"),
            help="When serving, write the addresses and the process id here, as JSON.",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(envvar=_env("LOG_LEVEL"), help="Least severe records logged.")
    ] = LogLevel.INFO,
    log_json: Annotated[
        bool, typer.Option("--log-json", envvar=_env("LOG_JSON"), help="Log JSON lines.")
    ] = False,
    drain_s: Annotated[
        float,
        typer.Option(
            envvar=_env("DRAIN_S"), min=0, help="Seconds running requests get after SIGTERM."
        ),
    ] = 30.0,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Serve the cloud half of P/D-Device: gRPC for devices, HTTP for operators.

    SIGTERM or SIGINT drains: new requests are refused, running ones end.

    A second one stops at once.
    """
    configure_logging(log_level.value, log_json)
    config = ServerConfig(
        engine=EngineConfig(
            model=model,
            dtype=dtype.value,
            device=device,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            sampler=sampler.value,
            threads=threads,
            fast_numerics=fast_numerics,
            engine=engine.value,
            kv_cache_mib=kv_cache_mib,
            vllm=VllmConfig(
                max_context_tokens=max_context_tokens,
                tensor_parallel_size=tensor_parallel_size,
                eager=eager,
            ),
        ),
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        max_num_waiting=max_num_waiting,
        max_context_tokens=max_context_tokens,
        max_output_tokens=max_output_tokens,
        max_tokens_in_flight=max_tokens_in_flight,
        tls=_tls(tls_cert, tls_key),
        api_key=_api_key(api_key_file),
        insecure=insecure,
        reflection=reflection,
        drain_s=drain_s,
    )
    with quick_imports():  # not for --help, nor for what is wrong with an option
        from pd_server.process import run_server

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    raise typer.Exit(asyncio.run(run_server(config, _engine_builder(config.engine), ready_file)))


def main() -> None:
    """Run the command; an error of ours is one line on stderr and its own exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(serve)
    try:
        app()
    except PdError as error:
        print(f"pd-server: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)


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
            from pd_server.torch_engine.engine import TorchEngine

        torch.set_num_threads(config.threads or _default_threads(torch.get_num_threads()))
        lm = load_model(
            config.model, dtype=config.dtype, device=config.device, fast=config.fast_numerics
        )
        return TorchEngine(
            lm,
            config.max_num_seqs,
            config.max_num_batched_tokens,
            config.sampler,
            config.kv_cache_bytes,
        )

    return build_vllm if config.engine == EngineKind.VLLM else build_torch


def _default_threads(torch_threads: int) -> int:
    """Return torch's own choice, but leave a core to the event loop.

    When both want the same core every short operator waits for it: on two cores a decode step of
    a small model took 2.5 ms with two threads and 1.2 ms with one.
    """
    return max(1, min(torch_threads, num_cores() - 1))


def _tls(cert: Path | None, key: Path | None) -> TlsConfig | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("--tls-cert and --tls-key belong together; give both")
    return TlsConfig(cert, key)


def _api_key(path: Path | None) -> str | None:
    if path is not None:
        return read_api_key(path)
    key = os.environ.get(_env("API_KEY"))
    return None if key is None else checked_api_key(key, "PD_SERVER_API_KEY")
