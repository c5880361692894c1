"""A server as a child process: awaited by its ready file, always stopped, its log in errors."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.files.ready_file import ReadyServer, read_ready_file
from pd_core.host.new_process import apart
from pd_core.process.parent_death import ending_with_parent

__all__ = ["READY_WITHIN_S", "STOP_WITHIN_S", "serving_process"]

READY_WITHIN_S = 120.0
"""Loading a large model takes a while."""

STOP_WITHIN_S = 10.0

_POLL_S = 0.05
_LOG_TAIL_BYTES = 4000
_OTHERS = ("PD_SERVER_", "PD_DEVICE_")


@asynccontextmanager
async def serving_process(
    command: Callable[[Path], Sequence[str]],
    what: str,
    *,
    ready_within_s: float = READY_WITHIN_S,
    stop_within_s: float = STOP_WITHIN_S,
    environment: Mapping[str, str] | None = None,
    starting: AbstractContextManager[object] | None = None,
) -> AsyncIterator[ReadyServer]:
    """Start a command that writes a ready file, yield it when it is ready, and always stop it.

    It does not inherit the settings, keys among them, of servers and devices that the user runs
    elsewhere. It ends when this process ends, in whatever way. If the caller is cancelled while
    stopping it, it is killed.

    Args:
        command: returns the command's words, given the ready file.
        what: its name in errors, such as "the server".
        ready_within_s: how long it may take to start.
        stop_within_s: how long it may take to end in order; then it is killed.
        environment: variables for it, unless the user has set them.
        starting: entered while it is started, for what a child inherits, such as its cores.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time; the message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="pd-serving-") as folder:
        ready_file, log_file = Path(folder) / "ready.json", Path(folder) / "server.log"
        with log_file.open("wb") as log, starting or nullcontext():
            process = await asyncio.create_subprocess_exec(
                *command(ready_file),
                env={**(environment or {}), **_own_environment()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=ending_with_parent(),
                **apart(),
            )
        try:
            yield await _ready(process, what, ready_file, log_file, ready_within_s)
        finally:
            await _stop(process, stop_within_s)


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}


async def _ready(
    process: asyncio.subprocess.Process, what: str, ready_file: Path, log: Path, within_s: float
) -> ReadyServer:
    try:
        async with asyncio.timeout(within_s):
            while (server := read_ready_file(ready_file)) is None:
                if process.returncode is not None:
                    raise CloudUnavailable(
                        f"{what} ended with code {process.returncode} before it was ready; the "
                        f"end of its log:\n{_tail(log)}"
                    )
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CloudTimeout(
            f"{what} was not ready within {within_s:g} s; the end of its log:\n{_tail(log)}"
        ) from None
    return server


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


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
