"""The process of `pd-device serve`, from its socket to its last signal."""

import asyncio
import signal
from collections.abc import Callable

from pd_core.files.ready_file import check_ready_file, write_ready_file
from pd_core.host.open_files import raise_open_files
from pd_core.host.signals import begin_obeying, stop_obeying
from pd_core.host.wall_clock import unix_time_s
from pd_core.process.ending_signals import ending_signals
from pd_core.sockets.listening import bind
from pd_core.sockets.loopback import is_loopback
from pd_device_client.api.app import make_app
from pd_device_client.api.http.guard import Access
from pd_device_client.api.http.http_server import HttpServer
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import ServeSettings
from pd_device_client.api.status import Status
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.answer_log import AnswerLog
from pd_device_client.device.device import open_device
from pd_device_client.device.residency import Residency
from pd_device_client.privacy.judge import PrivacyJudge
from pd_device_client.terminal.load_progress import LoadingLine

__all__ = ["serve"]


async def serve(
    settings: ServeSettings,
    cloud: CloudChoice,
    tell: Callable[[str], None],
    line: LoadingLine,
) -> int:
    """Serve until a signal; return the exit code.

    Args:
        settings: what to serve, and where.
        cloud: the current cloud; each load of the model makes a new link.
        tell: called with each line for the user.
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
    if settings.ready_file is not None:
        check_ready_file(settings.ready_file)
    listener = bind(settings.door.host, settings.door.port, "--port")
    status = Status(settings.answers, Places(settings.max_requests), cloud)
    judge = PrivacyJudge(settings.device.promises.rules)
    residency = Residency(
        lambda: open_device(
            settings.device, cloud.link(), line, settings.answers.battery, forms=True, judge=judge
        ),
        status,
        keep_alive_s=settings.keep_alive_s or None,
    )
    app = make_app(
        residency,
        status,
        _access(settings),
        unix_time_s=unix_time_s,
        on_answer=on_answer,
    )
    server = HttpServer(app, listener, raise_open_files())
    stopped = _on_signal()
    loaded = False
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
        await server.stop(at_once=not loaded)
        await residency.close()
        judge.close()


def _access(settings: ServeSettings) -> Access:
    """Return who may use the API."""
    hosts = settings.allowed_hosts
    return Access(
        key=settings.door.key(),
        # Other machines may reach this one by any name.
        any_host=not is_loopback(settings.door.host) and not hosts,
        hosts=frozenset(host.lower() for host in hosts),
        origins=frozenset(settings.allowed_origins),
    )


async def _load(residency: Residency, stopped: asyncio.Event) -> bool:
    """Load the model; return False if a signal came first."""
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
        write_ready_file(settings.ready_file, http=server.address)
    tell(f"serving {residency.device.loaded.name} at http://{server.address}/v1")
    tell(f"open http://{server.address} in a browser")


def _on_signal() -> asyncio.Event:
    """Return an event that an ending signal or Ctrl-C sets; a second one acts as usual."""
    stopped = asyncio.Event()
    signals = (*ending_signals(), signal.SIGINT)

    def stop() -> None:
        stopped.set()
        for number in signals:
            stop_obeying(number)

    for number in signals:
        begin_obeying(number, stop)
    return stopped
