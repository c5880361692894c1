"""`pd-device serve`: one process from the socket to the last signal."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.ending_signals import ending_signals
from pd_core.host.listening import bind
from pd_core.host.loopback import is_loopback
from pd_core.host.wall_clock import unix_time_s
from pd_device_client.api.app import make_app
from pd_device_client.api.guard import Access, check_listening
from pd_device_client.api.http_server import HttpServer
from pd_device_client.api.places import Places
from pd_device_client.api.questions import AnswerSettings
from pd_device_client.api.status import Status
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.answer_log import AnswerLog
from pd_device_client.device.device import DeviceSettings, open_device
from pd_device_client.device.residency import Residency
from pd_device_client.terminal.load_progress import LoadingLine

__all__ = ["ServeSettings", "serve"]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What the command line says.

    Attributes:
        device: what the device runs.
        answers: what holds where a request is silent.
        host, port: where to listen; port 0 picks a free one.
        max_requests: answers carried at once; more are refused.
        keep_alive_s: unload the model after so long without a request; None: never.
        client_key: bearer key that clients must send, or None.
        insecure: listen beyond loopback without a key.
        allowed_hosts: names of this machine, as clients write them, beside loopback's.
        allowed_origins: origins of pages that may use the API beside this port's own.
        ready_file: while serving, this file holds address and process id as JSON.
        answer_log: to append a line of figures to for every answer; None: nowhere.

    Raises:
        ConfigError: it would listen beyond loopback without a key, or a name is malformed.
    """

    device: DeviceSettings
    answers: AnswerSettings
    host: str = "127.0.0.1"
    port: int = 8088
    max_requests: int = 64
    keep_alive_s: float | None = None
    client_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    ready_file: Path | None = None
    answer_log: Path | None = None

    def __post_init__(self) -> None:
        check_listening(self.host, self.client_key, insecure=self.insecure)

    @property
    def cloud_settable(self) -> bool:
        """Whether another cloud may be chosen while it serves.

        Who chooses the cloud sees everybody's prompts, so nobody may who is not on this machine.
        """
        local = is_loopback(self.host) and not self.allowed_hosts and not self.allowed_origins
        return local and self.answers.mode is not Mode.DEVICE_ONLY

    @property
    def access(self) -> Access:
        """Who may ask."""
        return Access(
            key=self.client_key,
            # The names by which others reach this machine are theirs to know.
            any_host=not is_loopback(self.host) and not self.allowed_hosts,
            hosts=frozenset(host.lower() for host in self.allowed_hosts),
            origins=frozenset(self.allowed_origins),
        )


async def serve(
    settings: ServeSettings,
    cloud: CloudChoice,
    tell: Callable[[str], None],
    line: LoadingLine,
) -> int:
    """Serve until a signal; return the exit code.

    Args:
        settings: what to serve, and where.
        cloud: the way to the cloud; a link is made anew whenever the model is loaded.
        tell: called with what the user should know, one line each.
        line: shown while the model is loaded.

    Raises:
        PdError: it cannot start; the message says why.
    """
    if settings.answer_log is None:
        return await _serve(settings, cloud, tell, line, lambda outcome: None)
    with AnswerLog(settings.answer_log, unix_time_s) as log:
        return await _serve(settings, cloud, tell, line, log.write)


async def _serve(
    settings: ServeSettings,
    cloud: CloudChoice,
    tell: Callable[[str], None],
    line: LoadingLine,
    on_answer: Callable[[Outcome], None],
) -> int:
    if settings.ready_file is not None and not settings.ready_file.parent.is_dir():
        raise _no_ready_file(settings.ready_file, "there is no such folder")
    listener = bind(settings.host, settings.port, "--port")
    status = Status(settings.answers, Places(settings.max_requests), cloud)
    residency = Residency(
        lambda: open_device(settings.device, cloud.link(), line),
        status,
        keep_alive_s=settings.keep_alive_s,
    )
    app = make_app(
        residency,
        status,
        settings.access,
        unix_time_s=unix_time_s,
        on_answer=on_answer,
    )
    server = HttpServer(app, listener)
    stopped = _on_signal()
    await server.start()
    try:
        tell(f"loading {settings.device.model}")
        with line:
            loaded = await _load(residency, stopped)
        if not loaded:
            return 0
        _tell_ready(settings, residency, server, tell)
        await stopped.wait()
        return 0
    finally:
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)
        await server.stop()
        await residency.close()


async def _load(residency: Residency, stopped: asyncio.Event) -> bool:
    """Load the model; False where a signal came first."""
    loading = asyncio.ensure_future(residency.load())
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({loading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading
        return loading.done()
    finally:
        for task in (loading, waiting):
            task.cancel()
        await asyncio.gather(loading, waiting, return_exceptions=True)


def _tell_ready(
    settings: ServeSettings, residency: Residency, server: HttpServer, tell: Callable[[str], None]
) -> None:
    client = residency.device.client
    if client.cloud.error is not None:
        tell(f"note: the device goes on alone: {client.cloud.error}")
    if settings.ready_file is not None:
        _write_ready_file(settings.ready_file, server.address)
    tell(f"serving {residency.device.loaded.name} at http://{server.address}/v1")
    tell(f"open http://{server.address} in a browser")


def _on_signal() -> asyncio.Event:
    """Return an event that an ending signal or Ctrl-C sets; another then has its usual effect."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (*ending_signals(), signal.SIGINT)

    def stop() -> None:
        stopped.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    return stopped


def _write_ready_file(path: Path, address: str) -> None:
    """Write the address; a reader sees the whole file or none."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            json.dump({"http": address, "pid": os.getpid()}, file)
        Path(file.name).replace(path)
    except OSError as error:
        raise _no_ready_file(path, error.strerror) from error


def _no_ready_file(path: Path, why: str | None) -> ConfigError:
    return ConfigError(
        f"--ready-file {path} cannot be written ({why}); give a file in a folder that exists and "
        "can be written"
    )
