"""A real server process of our own, pinned to its cores and always stopped."""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pd_bench.harness.cores import thread_environment
from pd_core.files.ready_file import ReadyServer
from pd_core.host.affinity import pinned
from pd_core.host.cpu import num_cores
from pd_core.process.child_process import READY_WITHIN_S, STOP_WITHIN_S, serving_process
from pd_core.store.model_names import DEFAULT_MODEL

__all__ = ["ServerOptions", "own_server", "server_process", "serving"]

# vLLM imports itself in four processes and compiles; it stops them one after another.
_VLLM_READY_WITHIN_S = 1200.0
_VLLM_STOP_WITHIN_S = 45.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to start the server.

    Attributes:
        model: a name of `pd_core.store.model_names`, or a Hugging Face directory.
        sampler: "model" or "rolling-hash".
        max_num_seqs: requests decoded together.
        max_num_waiting: requests queued before new ones are refused.
        cores: CPU cores to pin it to; empty: not pinned.
        engine: "torch" or "vllm".
        python: the engine's interpreter; None: our own.
        dtype: type of weights and KV cache.
        max_num_batched_tokens: token budget of a step; None: the engine's default.
        kv_cache_mib: memory for KV caches; None: the engine's default.
        flags: more flags of the command line.
    """

    model: str = DEFAULT_MODEL
    sampler: str = "model"
    max_num_seqs: int = 16
    max_num_waiting: int = 1024
    cores: tuple[int, ...] = ()
    engine: str = "torch"
    python: Path | None = None
    dtype: str = "float32"
    max_num_batched_tokens: int | None = None
    kv_cache_mib: int | None = None
    flags: tuple[str, ...] = ()

    def command(self, ready_file: Path) -> list[str]:
        """Return the command line; the system picks free ports."""
        sizes = {
            "--max-num-batched-tokens": self.max_num_batched_tokens,
            "--kv-cache-mib": self.kv_cache_mib,
        }
        return [
            *(str(self.python or sys.executable), "-m", "pd_server"),
            *("--engine", self.engine, "--dtype", self.dtype),
            *("--model", self.model),
            *("--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"),
            *("--ready-file", str(ready_file)),
            *("--sampler", self.sampler),
            *("--max-num-seqs", str(self.max_num_seqs)),
            *("--max-num-waiting", str(self.max_num_waiting)),
            *("--threads", str(min(len(self.cores) or num_cores(), num_cores()))),
            *(part for k, v in sizes.items() if v is not None for part in (k, str(v))),
            *self.flags,
        ]


@asynccontextmanager
async def own_server(options: ServerOptions) -> AsyncIterator[str]:
    """Start a server, yield its gRPC address "host:port", and always stop it.

    Raises:
        PdError: as `server_process`.
    """
    async with serving(options) as server:
        yield server.address


def serving(options: ServerOptions) -> AbstractAsyncContextManager[ReadyServer]:
    """Start a server, yield it when it is ready, and always stop it.

    Raises:
        PdError: as `server_process`.
    """
    slow = options.engine == "vllm"
    return server_process(
        options.command,
        options.cores,
        _VLLM_READY_WITHIN_S if slow else READY_WITHIN_S,
        _VLLM_STOP_WITHIN_S if slow else STOP_WITHIN_S,
    )


def server_process(
    command: Callable[[Path], Sequence[str]],
    cores: tuple[int, ...] = (),
    ready_within_s: float = READY_WITHIN_S,
    stop_within_s: float = STOP_WITHIN_S,
) -> AbstractAsyncContextManager[ReadyServer]:
    """Start any command that writes a server's ready file, and always stop it.

    Args:
        command: returns its command line, given the ready file.
        cores: CPU cores to pin it to; empty: not pinned.
        ready_within_s: longest time to start.
        stop_within_s: longest time to stop by itself before it is killed.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """
    return serving_process(
        command,
        "the server",
        ready_within_s=ready_within_s,
        stop_within_s=stop_within_s,
        environment=thread_environment(cores),
        starting=pinned(cores),
    )
