"""The gRPC service: one bidirectional stream is one request.

`generation.proto` has the stream's rules. Half-closing is not a cancel: only the reading of the
client's messages ends. A cancelled call or a broken connection cancels the handler, and the request
is aborted in the engine before its next step.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pd_core.errors import PdError, ProtocolError, QuotaExceeded, ShuttingDown
from pd_core.generation import Admitted, Extend, Finished, ServerInfo, Start, Stop
from pd_core.identity.stream_seal import StreamSeal
from pd_core.process.tracing import Tracing
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1.generation_pb2_grpc import GenerationServiceServicer
from pd_server.engine.live_request import LiveRequest
from pd_server.engine.stream import EngineStream
from pd_server.engine.thread import EngineThread
from pd_server.gate.admission import Admission, Ticket
from pd_server.gate.validation import RequestValidator
from pd_server.keys.keyring import Keyring
from pd_server.keys.quota import Account, Charge
from pd_server.operations.metrics import Metrics
from pd_server.operations.tracing import traced_request
from pd_server.rpc.convert import event_to_pb, info_to_pb, request_from_pb

__all__ = ["GenerationService"]

logger = logging.getLogger(__name__)

# After Finished the call stays open until the client half-closes, or for this long, so that an
# Extend or Stop that crosses Finished is read and ignored. If the call had ended, gRPC would fail
# the client's write and with it the whole call, Finished included.
_LINGER_S = 1.0

Messages = AsyncIterator[pb.GenerateRequest]


class GenerationService(GenerationServiceServicer):
    """Carries requests from the wire to the engine and back.

    Args:
        engine: runs the requests.
        admission: bounds how many.
        validator: checks each.
        card: what GetServerInfo returns, except for the load.
        metrics: counts them.
        keyring: the keys; a call's is looked up here again, whatever let it in.
        share_prefixes: whether requests of different keys may share cached prefixes.
        tracing: makes spans; None: none are made.
        start_timeout_s: a stream without a Start after this is refused.
    """

    def __init__(
        self,
        engine: EngineThread,
        admission: Admission,
        validator: RequestValidator,
        card: ServerInfo,
        metrics: Metrics,
        keyring: Keyring,
        *,
        share_prefixes: bool = False,
        tracing: Tracing | None = None,
        start_timeout_s: float = 10.0,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._validator = validator
        self._card = card
        self._metrics = metrics
        self._keyring = keyring
        self._share_prefixes = share_prefixes
        self._tracing = tracing
        self._start_timeout_s = start_timeout_s
        self._engine_ids = itertools.count()
        self._draining = False
        self._open: set[EngineStream] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_open(self) -> int:
        """Admitted streams whose last message is not yet handed to gRPC."""
        return len(self._open)

    async def wait_idle(self) -> None:
        """Return when no stream is open."""
        await self._idle.wait()

    def drain(self) -> None:
        """Refuse new requests from now on; running ones go on."""
        self._draining = True

    def info(self) -> ServerInfo:
        """Return the server's card with the present load."""
        return replace(self._card, load=self._engine.load)

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        """Return the server's card."""
        return info_to_pb(self.info())

    async def Generate(
        self, request_iterator: Messages, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Carry one request; see `generation.proto` for the stream's rules."""
        start = await self._receive_start(request_iterator)
        if self._draining:
            raise ShuttingDown("the server shuts down; use another one, or try again later")
        self._validator.check_start(start)
        load = self._engine.load
        metadata = dict(context.invocation_metadata() or ())
        account = self._keyring.account(metadata.get("authorization"))
        parent = str(metadata.get("traceparent", ""))
        with traced_request(self._tracing, parent, start, account.name) as trace:
            call = self._admit(start, account)
            logger.info("admitted", extra=call.log_fields)
            stream = call.stream
            self._open.add(stream)
            self._idle.clear()
            reader = asyncio.create_task(self._read(request_iterator, call))
            try:
                seal = StreamSeal(start)
                yield event_to_pb(Admitted(load), seal)
                while stream in self._open:
                    event = await stream.receive()
                    yield event_to_pb(event, seal)
                    if isinstance(event, Finished):
                        self._finished(call, event)
                        trace.finished(event)
                await asyncio.wait({reader}, timeout=_LINGER_S)
            finally:
                reader.cancel()
                self._forget(call)
                await asyncio.gather(reader, return_exceptions=True)

    def _admit(self, start: Start, account: Account) -> "_Call":
        """Set aside what a request needs and hand it to the engine.

        Raises:
            CapacityError: its key has used up its quota, or there is no room.
            EngineDead: the engine has failed.
        """
        num_tokens = _num_tokens(start, start.token_limit)
        try:
            charge = account.admit(num_tokens)
        except QuotaExceeded:
            self._metrics.over_quota(account.name)
            raise
        ticket = None
        try:
            ticket = self._admission.admit(num_tokens)
            request = LiveRequest.of(
                next(self._engine_ids), self._scoped(start, account), time.perf_counter()
            )
            stream = self._engine.submit(request, on_end=partial(self._admission.release, ticket))
        except BaseException:
            if ticket is not None:
                self._admission.release(ticket)
            account.settle(charge, 0)
            raise
        return _Call(start, request, stream, ticket, account, charge)

    def _scoped(self, start: Start, account: Account) -> Start:
        """Return the request with a salt of its key's own, so that keys share no cached prefix.

        Whether a prefix is cached shows in the time to the first token: without this, one key could
        find out what another has asked.
        """
        if self._share_prefixes or not account.name:
            return start
        return replace(start, cache_salt=f"{account.name}/{start.cache_salt}")

    def _finished(self, call: "_Call", finished: Finished) -> None:
        """Count a stream that ended in order; gRPC already has its last message."""
        self._close(call.stream)
        self._metrics.finished(finished)
        self._settle(call, finished.tokens_generated, finished.engine_busy_s)
        logger.info(
            "finished (%s) after %d tokens",
            finished.reason,
            finished.tokens_generated,
            extra=call.log_fields,
        )

    def _forget(self, call: "_Call") -> None:
        """Abort a stream whose client has gone; do nothing for one that has ended."""
        self._close(call.stream)
        if not call.stream.ended:
            logger.info("the client has gone", extra=call.log_fields)
            self._metrics.cancelled()
            self._engine.abort(call.stream, ProtocolError("the stream was cancelled"))
        # Both are the engine's thread's, which may be in a step still: that one is not counted.
        self._settle(call, call.request.num_generated_tokens, call.request.busy_s)

    def _settle(self, call: "_Call", num_made: int, busy_s: float) -> None:
        """Charge a request to its key, once."""
        if call.charge.settled:
            return
        num_prefix = call.request.num_prefix_tokens
        call.account.settle(call.charge, num_prefix + num_made)
        self._metrics.used(call.account.name, num_prefix, num_made, busy_s)

    def _close(self, stream: EngineStream) -> None:
        self._open.discard(stream)
        if not self._open:
            self._idle.set()

    async def _receive_start(self, messages: Messages) -> Start:
        """Return the Start that must be the first message.

        Raises:
            ProtocolError: another message came first, or none came in time.
        """
        try:
            async with asyncio.timeout(self._start_timeout_s):
                message = await anext(messages)
        except StopAsyncIteration:
            raise ProtocolError("the stream ended before a Start; send Start first") from None
        except TimeoutError:
            raise ProtocolError(
                f"no Start came within {self._start_timeout_s:g} s; send it when the stream opens"
            ) from None
        first = request_from_pb(message)
        if not isinstance(first, Start):
            raise ProtocolError(f"{type(first).__name__} came before Start; send Start first")
        return first

    async def _read(self, messages: Messages, call: "_Call") -> None:
        """Apply the client's later messages until it half-closes; a bad one ends the stream."""
        stream, token_limit = call.stream, call.start.token_limit
        try:
            async for message in messages:
                value = request_from_pb(message)
                if stream.ended:
                    continue  # it crossed our last message; there is nothing to apply it to
                match value:
                    case Start():
                        raise ProtocolError(
                            "a second Start came on this stream; open a new stream for it"
                        )
                    case Extend():
                        self._validator.check_extend(call.start, value)
                        granted = self._extend(call, value.token_limit - token_limit)
                        if granted:
                            token_limit += granted
                            self._engine.extend(stream, token_limit)
                    case Stop():
                        self._engine.stop(stream)
        except PdError as error:
            self._engine.abort(stream, error)

    def _extend(self, call: "_Call", num_tokens: int) -> int:
        """Return how many more tokens a request may make, of its key and of the server."""
        allowed = call.account.extend(call.charge, num_tokens)
        granted = self._admission.extend(call.ticket, allowed)
        call.account.give_back(call.charge, allowed - granted)
        return granted


@dataclass(slots=True, eq=False)
class _Call:
    """One admitted request, and what was set aside for it.

    Attributes:
        start: as the client sent it.
        request: as the engine has it.
        stream: its events.
        ticket: its share of the server's bounds.
        account: of the key that it came with.
        charge: its share of that key's quota.
    """

    start: Start
    request: LiveRequest
    stream: EngineStream
    ticket: Ticket
    account: Account
    charge: Charge

    @property
    def log_fields(self) -> dict[str, str]:
        """What log lines about it carry."""
        return {"request_id": self.start.request_id, "key": self.account.name}


def _num_tokens(start: Start, token_limit: int) -> int:
    """Return the most tokens a request may come to hold: its prefix and what it may generate."""
    num_prefix = len(start.prompt_token_ids) + len(start.committed_token_ids)
    return num_prefix + max(0, token_limit - start.first_position)
