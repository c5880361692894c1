"""One stream of an answer from an OpenAI-compatible server: one HTTP request after another.

A request ends at its own limit. If the stream's has been raised meanwhile, the next request asks
for the rest, with all tokens so far as its prompt.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pd_core.errors import (
    CloudUnavailable,
    FingerprintMismatch,
    PdError,
    RequestError,
    TransportError,
)
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Finished,
    FinishReason,
    Load,
    Start,
    Stop,
    Tokens,
)
from pd_device_client.cloud.openai.device_model import DeviceModel
from pd_device_client.cloud.openai.dialects import Dialect
from pd_device_client.cloud.openai.endpoint import Endpoint
from pd_device_client.cloud.openai.probe import Found

__all__ = ["OpenAiStream"]

logger = logging.getLogger(__name__)

_END_WITHIN_S = 1.0  # after the answer's last chunk; then a body that is still open is left


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way to the stream's reader."""

    error: PdError


class OpenAiStream:
    """A stream, from its start on the running loop.

    Args:
        endpoint: the server.
        dialect: how it is asked.
        found: what it was found to be.
        device: what this device runs, or None.
        start: what is asked.
        on_failure: called when the server did something that it should not.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        found: Found,
        device: DeviceModel | None,
        start: Start,
        on_failure: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._found = found
        self._start = start
        self._on_failure = on_failure
        self._limit = start.token_limit
        self._made = list(start.committed_token_ids)
        eos = () if device is None else device.card.eos_token_ids
        self._eos_token_id = eos[0] if eos else None
        self._ends = frozenset((*eos, *start.stop_token_ids))
        self._sent = 0  # tokens given to the reader
        self._counted = 0  # tokens by the server's count, of requests that ended
        self._model = ""  # as the stream names it
        # Bounded by the limit on tokens; the session takes events as they come.
        self._events: asyncio.Queue[CloudEvent | _Failure] = asyncio.Queue()
        self._events.put_nowait(Admitted(Load()))
        self._stopped = False
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        """Yield what the server sends, until Finished or an error."""
        while True:
            event = await self._events.get()
            if isinstance(event, _Failure):
                raise event.error
            yield event
            if isinstance(event, Finished):
                return

    async def send(self, message: Extend | Stop) -> None:
        """Raise the limit, or stop: servers stop when the connection closes."""
        if isinstance(message, Extend):
            self._limit = max(self._limit, message.token_limit)
        elif not self._work.done():
            self._stopped = True
            self._work.cancel()

    def cancel(self) -> None:
        """Close the connection."""
        self._work.cancel()

    async def _run(self) -> None:
        """Make the stream's events; its end is one of them, whatever happens."""
        try:
            reason = await self._answer()
            self._events.put_nowait(self._finished(reason))
        except asyncio.CancelledError:
            if self._stopped:
                self._events.put_nowait(self._finished(FinishReason.CANCELLED))
            else:
                self._events.put_nowait(_Failure(CloudUnavailable("the link was closed")))
        except PdError as error:
            if isinstance(error, RequestError):
                self._on_failure()
            self._events.put_nowait(_Failure(error))
        except Exception as error:
            logger.exception("request %s: the cloud's stream failed", self._start.request_id)
            words = f"the cloud's stream failed: {type(error).__name__}"
            self._events.put_nowait(_Failure(TransportError(words)))

    def _finished(self, reason: FinishReason) -> Finished:
        return Finished(reason, max(self._sent, self._counted))

    async def _answer(self) -> FinishReason:
        """Send requests until the limit, an end or an error."""
        while True:
            wanted = self._limit - self._position
            forced = self._start.sampling.forced_length
            if forced is not None:
                if self._position >= forced - 1 and wanted > 0 and self._eos_token_id is not None:
                    self._put((self._eos_token_id,))
                    return FinishReason.STOP
                wanted = min(wanted, forced - 1 - self._position)
            if wanted <= 0:
                return FinishReason.LENGTH
            before = self._sent
            reason = await self._request(wanted)
            if reason is FinishReason.STOP or self._sent == before:
                return reason

    async def _request(self, wanted: int) -> FinishReason:
        """Send one request and read its stream; return why it ended."""
        body = self._dialect.body(self._start, self._made, wanted)
        reader = self._dialect.reader(self._start, self._made)
        before, counted = self._sent, self._counted
        done: FinishReason | None = None  # by the tokens
        said: FinishReason | None = None  # by the server
        async with (
            self._endpoint.events(self._dialect.path, body) as all_events,
            aclosing(_soon_after(all_events, lambda: said is not None)) as events,
        ):
            async for event in events:
                chunk = self._dialect.chunk(event)
                self._check_model(chunk.model)
                if chunk.made is not None:
                    self._counted = counted + chunk.made
                if said is not None:
                    continue
                said, done = chunk.reason, self._put(reader.take(chunk))
                if said is None and done is not None:
                    return done  # a server that ignores its limit, or an end, is left here
        if said is None:
            raise CloudUnavailable("the cloud's stream ended before the answer did")
        done = done or self._put(reader.end())
        if done is not None:
            return done
        if said is FinishReason.STOP and self._eos_token_id is not None:
            self._put((self._eos_token_id,))
        elif said is FinishReason.LENGTH and self._sent == before:
            raise CloudUnavailable("the cloud ended its answer without a token")
        return said

    @property
    def _position(self) -> int:
        """The next position."""
        return self._start.committed_first_position + len(self._made)

    def _put(self, token_ids: tuple[int, ...]) -> FinishReason | None:
        """Give tokens to the reader, up to an end or the limit; return which was reached."""
        reason: FinishReason | None = None
        for index, token_id in enumerate(token_ids):
            if self._position + index >= self._limit:
                token_ids, reason = token_ids[:index], FinishReason.LENGTH
                break
            if token_id in self._ends and not self._masked(token_id):
                token_ids, reason = token_ids[: index + 1], FinishReason.STOP
                break
        if token_ids:
            self._events.put_nowait(Tokens(self._position, token_ids))
            self._made += token_ids
            self._sent += len(token_ids)
        return reason

    def _masked(self, token_id: int) -> bool:
        """Whether a token is an end that the request does not want: the session judges it."""
        return self._start.sampling.ignore_eos and token_id not in self._start.stop_token_ids

    def _check_model(self, name: str) -> None:
        """Check that all of the stream comes from the model that was found.

        A text service names what it is asked for more exactly, such as with a date.

        Raises:
            FingerprintMismatch: it comes from another one.
        """
        if not name:
            return
        expected = self._model or (self._found.model if self._found.service.gives_ids else name)
        self._model = name
        if name != expected:
            raise FingerprintMismatch(
                "the cloud has changed its model in between, so what it sends is not used"
            )


async def _soon_after(
    events: AsyncGenerator[dict[str, Any], None], ended: Callable[[], bool]
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield events; once the answer has ended, only those that come soon."""
    while True:
        try:
            async with asyncio.timeout(_END_WITHIN_S if ended() else None):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if ended():
                return
            raise
        yield event
