"""The one thread that owns an engine, and the only way from asyncio to it.

Commands go in through one queue and are applied between steps, so a cancel takes effect within one
step. Events come back through `call_soon_threadsafe`, one call a step.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pd_core.errors import EngineDead, PdError
from pd_core.generation import Load
from pd_server.engine.contract import Engine, EngineEvent
from pd_server.engine.live_request import LiveRequest
from pd_server.engine.stream import EngineStream

__all__ = ["EngineThread"]

logger = logging.getLogger(__name__)

# How often an idle engine is checked: its processes may die while it has nothing to do.
_IDLE_CHECK_S = 1.0


class EngineThread:
    """Runs an engine. All public methods belong to the event loop it was made on.

    Args:
        engine: owned by the thread from `start` on.
        on_dead: called on the loop when the engine fails for good, after all its streams got
            EngineDead.
    """

    def __init__(self, engine: Engine, on_dead: Callable[[EngineDead], None]) -> None:
        self._engine = engine
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[LiveRequest | Callable[[], None] | None]
        self._commands = queue.SimpleQueue()
        self._streams: dict[int, EngineStream] = {}
        self._dead: EngineDead | None = None
        self._coming: dict[int, int] = {}  # tokens of requests that the load does not count yet
        self._load = engine.load()
        # A daemon thread: a step that hangs must not keep a stopping process alive.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def load(self) -> Load:
        """The load as of the last step, requests on their way to the engine included."""
        load, coming = self._load, self._coming
        return replace(
            load,
            num_waiting=load.num_waiting + len(coming),
            queued_prefill_tokens=load.queued_prefill_tokens + sum(coming.values()),
        )

    @property
    def num_streams(self) -> int:
        """Requests that have not ended yet."""
        return len(self._streams)

    def submit(self, request: LiveRequest, on_end: Callable[[], None]) -> EngineStream:
        """Hand a request to the engine.

        Args:
            request: a request with an id never used before; the engine owns it from here on.
            on_end: called once when it has ended, failed or was aborted.

        Raises:
            EngineDead: the engine has failed.
        """
        if self._dead is not None:
            raise self._dead
        stream = EngineStream(request, on_end)
        self._streams[request.request_id] = stream
        self._coming[request.request_id] = request.num_prefix_tokens
        self._commands.put(request)
        return stream

    def extend(self, stream: EngineStream, token_limit: int) -> None:
        """Raise a request's token limit; ignored once it has ended."""
        if not stream.ended:
            self._commands.put(lambda: self._engine.extend(stream.request_id, token_limit))

    def stop(self, stream: EngineStream) -> None:
        """End a request in order; ignored once it has ended."""
        if not stream.ended:
            self._commands.put(lambda: self._engine.stop(stream.request_id))

    def abort(self, stream: EngineStream, error: PdError) -> None:
        """Forget a request and end its stream with an error; ignored once it has ended."""
        if self._streams.pop(stream.request_id, None) is not None:
            self._commands.put(lambda: self._engine.abort(stream.request_id))
            stream.fail(error)

    def abort_all(self, error: PdError) -> None:
        """End every stream with an error."""
        for stream in list(self._streams.values()):
            self.abort(stream, error)

    async def close(self, timeout_s: float = 15.0) -> None:
        """Stop the thread after its present step, and the engine; give up after timeout_s."""
        self._commands.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        """Apply commands, step and report, until a None command or a failure."""
        try:
            while (came := self._apply_commands()) is not None:
                events = self._engine.step() if self._engine.has_unfinished() else []
                self._call_loop(partial(self._deliver, came, events, self._engine.load()))
        except BaseException as error:  # whatever ends this thread, its streams must hear of it
            logger.exception("the engine failed; this server no longer answers requests")
            dead = error if isinstance(error, EngineDead) else _died_of(error)
            self._call_loop(partial(self._die, dead))
        self._close_engine()

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception:  # the thread ends here in any case
            logger.exception("the engine did not close in order")

    def _apply_commands(self) -> list[int] | None:
        """Apply all queued commands, waiting a while for one when there is nothing to compute.

        Returns:
            The ids of the new requests; None: the thread must stop.
        """
        came: list[int] = []
        block = not self._engine.has_unfinished()
        while True:
            try:
                command = self._commands.get(block=block, timeout=_IDLE_CHECK_S)
            except queue.Empty:
                return came
            if command is None:
                return None
            if isinstance(command, LiveRequest):
                self._engine.add_request(command)
                came.append(command.request_id)
            else:
                command()
            block = False

    def _call_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: there is no one left to tell
            logger.debug("the event loop has ended before the engine's thread")

    def _deliver(self, came: list[int], events: list[EngineEvent], load: Load) -> None:
        self._load = load
        for request_id in came:
            del self._coming[request_id]
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is None:
                continue
            stream.put(event)
            if stream.ended:
                del self._streams[event.request_id]

    def _die(self, error: EngineDead) -> None:
        self._dead = error
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.fail(error)
        self._on_dead(error)


def _died_of(error: BaseException) -> EngineDead:
    return EngineDead(
        f"the engine failed ({type(error).__name__}); restart the server, its log has the cause"
    )
