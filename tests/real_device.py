"""A real `python -m pd_device_client serve` process, for tests that talk to one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RealDevice:
    """A serving process.

    Attributes:
        url: of its API, without the /v1.
        process: the process.
        log: what it has said.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def real_device(folder: Path, *options: str, ready_within_s: float = 100) -> Iterator[RealDevice]:
    """Start a device on a free port, yield it when it is ready, and end it whatever happens."""
    ready_file, log = folder / "device.json", folder / "device.log"
    command = [
        *(sys.executable, "-m", "pd_device_client", "serve", "--port", "0", "--threads", "1"),
        *("--model", "random-tiny", "--ready-file", str(ready_file), *options),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_DEVICE_")}
    with log.open("wb") as out, _hang_up_as_usual():
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + ready_within_s
        while not ready_file.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the device did not become ready"
            time.sleep(0.05)
        ready = json.loads(ready_file.read_text())
        yield RealDevice(f"http://{ready['http']}", process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _hang_up_as_usual() -> Iterator[None]:
    """Let what is started here end when its terminal closes, under nohup too.

    Set here and not in the child: between fork and exec gRPC's threads would be in the way.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
