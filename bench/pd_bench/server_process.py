"""A real server process of our own: started fresh, always stopped, its log shown when it fails."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pd_bench.cores import pinned, thread_environment
from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.model_names import DEFAULT_MODEL

__all__ = ["ServerAddresses", "ServerOptions", "own_server", "serving"]

# Loading a large model takes a while; vLLM imports itself in four processes, and compiles.
_READY_WITHIN_S = {"torch": 120.0, "vllm": 1200.0}
_STOP_WITHIN_S = {"torch": 10.0, "vllm": 45.0}
_POLL_S = 0.05
_LOG_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to start the server.

    Attributes:
        model: a name of `pd_core.model_names`, or a Hugging Face directory.
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


class ServerAddresses(NamedTuple):
    """Where a server listens, "host:port" each."""

    grpc: str
    http: str


@asynccontextmanager
async def own_server(options: ServerOptions) -> AsyncIterator[str]:
    """Serve as `serving` does, for those who need the gRPC address alone."""
    async with serving(options) as addresses:
        yield addresses.grpc


@asynccontextmanager
async def serving(options: ServerOptions) -> AsyncIterator[ServerAddresses]:
    """Start a server, yield its addresses, and stop it whatever happens.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
        ready_file = Path(folder) / "ready.json"
        async with _process(options, ready_file, Path(folder)) as process:
            within_s = _READY_WITHIN_S[options.engine]
            yield await _addresses(process, ready_file, Path(folder) / "server.log", within_s)


@asynccontextmanager
async def _process(
    options: ServerOptions, ready_file: Path, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / "server.log").open("wb") as log, pinned(options.cores):
        process = await asyncio.create_subprocess_exec(
            *options.command(ready_file),
            env=_environment(options.cores),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we stop it in order
        )
    try:
        yield process
    finally:
        await _stop(process, _STOP_WITHIN_S[options.engine])


def _environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Leave out the settings of a server that the user runs elsewhere, its key among them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PD_SERVER_")}
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


async def _addresses(
    process: asyncio.subprocess.Process, ready_file: Path, log: Path, within_s: float
) -> ServerAddresses:
    try:
        async with asyncio.timeout(within_s):
            while (addresses := _ready_addresses(ready_file)) is None:
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
    return addresses


def _ready_addresses(ready_file: Path) -> ServerAddresses | None:
    """Read the addresses once the file is there; the server puts it in place in one move."""
    if not ready_file.exists():
        return None
    ready = json.loads(ready_file.read_text())
    return ServerAddresses(str(ready["grpc"]), str(ready["http"]))


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
