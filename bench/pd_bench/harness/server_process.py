"""A real server process of our own: started fresh, always stopped, its log shown when it fails."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pd_bench.harness.cores import pinned, thread_environment
from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.host.parent_death import ending_with_parent
from pd_core.store.model_names import DEFAULT_MODEL

__all__ = ["OwnServer", "ServerOptions", "own_server", "server_process", "serving"]

_READY_WITHIN_S = 120.0  # loading a large model takes a while
_STOP_WITHIN_S = 10.0
# vLLM imports itself in four processes, and compiles; it lets go of them one after the other.
_VLLM_READY_WITHIN_S = 1200.0
_VLLM_STOP_WITHIN_S = 45.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 4000


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
        python: interpreter that has it; None: our own.
        dtype: of weights and KV cache.
        max_num_batched_tokens: tokens of one step; None: the engine's own choice.
        kv_cache_mib: memory for KV caches; None: the engine's own choice.
        flags: further ones of the command line.
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
        """Return the command line; ports are free ones."""
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
            *("--threads", str(len(self.cores) or os.cpu_count() or 1)),
            *(part for k, v in sizes.items() if v is not None for part in (k, str(v))),
            *self.flags,
        ]


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A serving process.

    Attributes:
        address: gRPC "host:port"; "" of a device, which has none.
        http_address: of its control plane or API, likewise.
        pid: its process.
    """

    address: str
    http_address: str
    pid: int


@asynccontextmanager
async def own_server(options: ServerOptions) -> AsyncIterator[str]:
    """Start a server, yield its gRPC address "host:port", and stop it whatever happens.

    Raises:
        PdError: as `server_process`.
    """
    async with serving(options) as server:
        yield server.address


@asynccontextmanager
async def serving(options: ServerOptions) -> AsyncIterator[OwnServer]:
    """Start a server, yield it when it is ready, and stop it whatever happens.

    Raises:
        PdError: as `server_process`.
    """
    slow = options.engine == "vllm"
    async with server_process(
        options.command,
        options.cores,
        _VLLM_READY_WITHIN_S if slow else _READY_WITHIN_S,
        _VLLM_STOP_WITHIN_S if slow else _STOP_WITHIN_S,
    ) as server:
        yield server


@asynccontextmanager
async def server_process(
    command: Callable[[Path], Sequence[str]],
    cores: tuple[int, ...] = (),
    ready_within_s: float = _READY_WITHIN_S,
    stop_within_s: float = _STOP_WITHIN_S,
) -> AsyncIterator[OwnServer]:
    """Start any command that writes a server's ready file, and stop it whatever happens.

    Args:
        command: its words, given the ready file.
        cores: CPU cores to pin it to; empty: not pinned.
        ready_within_s: how long it may take to start.
        stop_within_s: how long it may take to end in order; then it is killed.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
        ready_file, log = Path(folder) / "ready.json", Path(folder) / "server.log"
        started = _process(command(ready_file), Path(folder), cores, stop_within_s)
        async with started as process:
            yield await _ready(process, ready_file, log, ready_within_s)


@asynccontextmanager
async def _process(
    command: Sequence[str], folder: Path, cores: tuple[int, ...], stop_within_s: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / "server.log").open("wb") as log, pinned(cores):
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_environment(cores),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we stop it in order
            preexec_fn=ending_with_parent(),
        )
    try:
        yield process
    finally:
        await _stop(process, stop_within_s)


def _environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Leave out the settings of what the user runs elsewhere, keys among them."""
    others = ("PD_SERVER_", "PD_DEVICE_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return thread_environment(cores) | own


async def _stop(process: asyncio.subprocess.Process, within_s: float) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError) as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise


async def _ready(
    process: asyncio.subprocess.Process, ready_file: Path, log: Path, within_s: float
) -> OwnServer:
    try:
        async with asyncio.timeout(within_s):
            while (server := _told(ready_file)) is None:
                if process.returncode is not None:
                    raise CloudUnavailable(
                        f"the server ended with code {process.returncode} before it was ready; "
                        f"the end of its log:\n{_tail(log)}"
                    )
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CloudTimeout(
            f"the server was not ready within {within_s:g} s; the end of its log:\n{_tail(log)}"
        ) from None
    return server


def _told(ready_file: Path) -> OwnServer | None:
    """Read the ready file once it is there; the server puts it in place in one move."""
    if not ready_file.exists():
        return None
    told = json.loads(ready_file.read_text())
    return OwnServer(told.get("grpc", ""), told["http"], told["pid"])


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
