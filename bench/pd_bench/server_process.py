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

from pd_bench.cores import pinned, thread_environment
from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.model_names import DEFAULT_MODEL

__all__ = ["OwnServer", "ServerOptions", "own_server", "server_process"]

_READY_WITHIN_S = 120.0  # loading a large model takes a while
_STOP_WITHIN_S = 10.0
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
    """

    model: str = DEFAULT_MODEL
    sampler: str = "model"
    max_num_seqs: int = 16
    max_num_waiting: int = 1024
    cores: tuple[int, ...] = ()

    def command(self, ready_file: Path) -> list[str]:
        """Return the command line; ports are free ones."""
        return [
            *(sys.executable, "-m", "pd_server"),
            *("--model", self.model),
            *("--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"),
            *("--ready-file", str(ready_file)),
            *("--sampler", self.sampler),
            *("--max-num-seqs", str(self.max_num_seqs)),
            *("--max-num-waiting", str(self.max_num_waiting)),
            *("--threads", str(len(self.cores) or os.cpu_count() or 1)),
        ]


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A serving process.

    Attributes:
        address: gRPC "host:port".
        http_address: of its control plane, likewise.
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
    async with server_process(options.command, options.cores) as server:
        yield server.address


@asynccontextmanager
async def server_process(
    command: Callable[[Path], Sequence[str]],
    cores: tuple[int, ...] = (),
    ready_within_s: float = _READY_WITHIN_S,
) -> AsyncIterator[OwnServer]:
    """Start any command that writes a server's ready file, and stop it whatever happens.

    Args:
        command: its words, given the ready file.
        cores: CPU cores to pin it to; empty: not pinned.
        ready_within_s: how long it may take to start.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
        ready_file, log = Path(folder) / "ready.json", Path(folder) / "server.log"
        async with _process(command(ready_file), Path(folder), cores) as process:
            yield await _ready(process, ready_file, log, ready_within_s)


@asynccontextmanager
async def _process(
    command: Sequence[str], folder: Path, cores: tuple[int, ...]
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / "server.log").open("wb") as log, pinned(cores):
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_environment(cores),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we stop it in order
        )
    try:
        yield process
    finally:
        await _stop(process)


def _environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Leave out the settings of a server that the user runs elsewhere, its key among them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PD_SERVER_")}
    return thread_environment(cores) | own


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_WITHIN_S):
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
    return OwnServer(told["grpc"], told["http"], told["pid"])


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
