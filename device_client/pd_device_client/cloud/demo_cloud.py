"""A cloud on this machine for `pd-device serve --demo`: a `pd-server` process, always stopped.

The sides share only the wire protocol, so the server runs as a process instead of being imported.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.cpu import num_cores
from pd_core.host.installed import is_installed
from pd_core.process.child_process import serving_process
from pd_device_client.contract.ask import Mode

__all__ = ["DEMO_PACE_S", "DEMO_PROFILE", "check_demo", "demo_cloud", "half_the_cores"]

DEMO_PROFILE = "slow"
"""The default throttle: both sides share this machine."""

DEMO_PACE_S = 0.1
"""The default pace: slow enough to watch."""

_SERVER = "pd_server"
_SERVER_NEEDS = ("grpc_health", "grpc_reflection")  # what only its extra installs


def check_demo(cloud: str | None, mode: Mode) -> None:
    """Refuse a demonstration that cannot work.

    Raises:
        ConfigError: a cloud was named, the mode is device-only, or pd-server is not installed.
    """
    if mode is Mode.DEVICE_ONLY:
        raise ConfigError("--demo shows both sides, and --mode device-only wants one; leave it out")
    if cloud is not None:
        raise ConfigError(
            f"--demo starts a cloud of its own, and --cloud {cloud} names another; give one of them"
        )
    if not all(map(is_installed, (_SERVER, *_SERVER_NEEDS))):
        raise ConfigError(
            "--demo needs the cloud's part on this machine too: pip install "
            "'pd-device[server,device]', or name a cloud with --cloud HOST:PORT"
        )


def half_the_cores() -> int:
    """Return the number of threads per side when both share this machine."""
    return max(num_cores() // 2, 1)


@asynccontextmanager
async def demo_cloud(model: str, num_threads: int) -> AsyncIterator[str]:
    """Start a server, yield its address "host:port", and always stop it.

    Args:
        model: as `--model` takes it.
        num_threads: threads of the server's engine.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """

    def command(ready_file: Path) -> list[str]:
        return [
            *(sys.executable, "-m", _SERVER, "--model", model),
            *("--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"),
            *("--threads", str(num_threads), "--ready-file", str(ready_file)),
        ]

    async with serving_process(command, "the demonstration's cloud") as server:
        yield server.address
