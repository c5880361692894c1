"""A real server process of our own: started fresh, always stopped, its log shown when it fails."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pd_bench.cores import pinned, thread_environment
from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.model_names import DEFAULT_MODEL

__all__ = ["ServerOptions", "own_server"]

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


@asynccontextmanager
async def own_server(options: ServerOptions) -> AsyncIterator[str]:
    """Start a server, yield its gRPC address "host:port", and stop it whatever happens.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
        ready_file = Path(folder) / "ready.json"
        async with _process(options.command(ready_file), Path(folder), options.cores) as process:
            yield await _address(process, ready_file, Path(folder) / "server.log")


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


async def _address(process: asyncio.subprocess.Process, ready_file: Path, log: Path) -> str:
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            while (address := _ready_address(ready_file)) is None:
                if process.returncode is not None:
                    raise CloudUnavailable(
                        f"the server ended with code {process.returncode} before it was ready; "
                        f"the end of its log:\n{_tail(log)}"
                    )
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CloudTimeout(
            f"the server was not ready within {_READY_WITHIN_S:g} s; the end of its log:\n"
            f"{_tail(log)}"
        ) from None
    return address


def _ready_address(ready_file: Path) -> str | None:
    """Read the address once the file is there; the server puts it in place in one move."""
    return str(json.loads(ready_file.read_text())["grpc"]) if ready_file.exists() else None


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
