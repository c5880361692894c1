"""A real `python -m pd_server` process for tests that need one, and may kill it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RealServer:
    """A serving process.

    Attributes:
        address: gRPC "host:port".
        http_address: of the control plane, likewise.
        process: the process.
    """

    address: str
    http_address: str
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@contextmanager
def real_server(
    folder: Path,
    *options: str,
    ready_within_s: float = 60,
    environment: Mapping[str, str] | None = None,
    open_files: int | None = None,
) -> Iterator[RealServer]:
    """Start a server on free ports, yield it when it is ready, and end it whatever happens.

    Args:
        open_files: its limit of open files, sockets included; None: that of this process.
    """
    ready_file = folder / "ready.json"
    command = [
        *(sys.executable, "-m", "pd_server", "--grpc-port", "0", "--http-port", "0"),
        # The quickest model, unless the options name another.
        *("--model", "random-tiny", "--threads", "1", "--ready-file", str(ready_file), *options),
    ]
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *command]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
    try:
        deadline = time.monotonic() + ready_within_s
        while not ready_file.exists():
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        yield RealServer(ready["grpc"], ready["http"], process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
