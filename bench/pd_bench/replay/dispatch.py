"""Sends a workload through device clients and records every request, the failed ones too."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pd_bench.replay.progress import Progress
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord, output_sha256
from pd_bench.results.series import Timeline
from pd_core.errors import PdError
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import Happened
from pd_device_client.contract.outcome import Outcome, Shown

__all__ = [
    "Client",
    "Dispatched",
    "DispatchedSession",
    "Dispatcher",
    "RecordMaker",
    "record_of",
    "timeline_of",
]

logger = logging.getLogger(__name__)

_PREPARE_S = 1.0


class DispatchedSession(Protocol):
    """What the dispatcher needs of a device client's session."""

    @property
    def outcome(self) -> Outcome: ...

    def run(self) -> AsyncIterator[Shown | Happened]: ...


class Client(Protocol):
    """What the dispatcher needs of a device client."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def session(self, request: Ask, mode: str) -> DispatchedSession: ...


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How a request was sent, and what ended it where it did not end well.

    Attributes:
        scheme: the mode it was carried in.
        repeat: which pass over the trace, from 0.
        lag_s: seconds from its scheduled arrival to the submit.
        arrival_s: scheduled, since the scheme's start; 0 for sequential arrivals.
        error: why it was given up, or None.
    """

    scheme: str
    repeat: int = 0
    lag_s: float = 0.0
    arrival_s: float = 0.0
    error: str | None = None


RecordMaker = Callable[[Work, Outcome, Dispatched], RequestRecord]
"""Makes the record of a request that has ended; see `record_of`."""


class Dispatcher:
    """Runs one scheme's requests; `records` grows as they end and survives a cancellation.

    So do `timelines`, of the rows that are watched.

    Args:
        scheme: the mode of every request.
        repeat: which pass over the trace.
        request_of: makes the request of a row.
        timeout_s: a request that takes longer than this has failed.
        progress: told of every token and every end; None for a warm-up.
        watched: rows (`Work.id`) to keep token by token.
        make_record: makes a request's record; None: `record_of`.
        on_end: given each request's record and outcome; then nothing is kept here, so that memory
            does not grow with the trace.
    """

    def __init__(
        self,
        scheme: str,
        repeat: int,
        request_of: Callable[[Work], Ask],
        *,
        timeout_s: float,
        progress: Progress | None = None,
        watched: Collection[int] = (),
        make_record: RecordMaker | None = None,
        on_end: Callable[[RequestRecord, Outcome], None] | None = None,
    ) -> None:
        self._make_record = make_record or record_of
        self.records: list[RequestRecord] = []
        self.timelines: list[Timeline] = []
        self._watched = frozenset(watched)
        self._on_end = on_end
        self._scheme = scheme
        self._repeat = repeat
        self._request_of = request_of
        self._timeout_s = timeout_s
        self._progress = progress

    async def run_sequential(self, works: Sequence[Work], client: Client) -> None:
        """Send one request after the other; each arrives when the one before it has ended."""
        loop = asyncio.get_running_loop()
        for work in works:
            await self._run(work, client, loop.time(), arrival_s=0.0)

    async def run_open_loop(
        self,
        works: Sequence[Work],
        client_of: Callable[[Work], Client],
        prepare_s: float = _PREPARE_S,
    ) -> None:
        """Send each request at its row's arrival, from its own client, whatever has ended by then.

        Args:
            works: sorted by arrival.
            client_of: makes the client of a request; it is started and closed here.
            prepare_s: a client starts (and asks for the cloud's card) so long before its
                request, as a device is on before its user types.
        """
        epoch_s = asyncio.get_running_loop().time() + prepare_s
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(self._run_at_arrival(work, client_of, epoch_s, prepare_s))

    async def run_stream(
        self,
        works: Iterable[Work],
        client_of: Callable[[Work], Client],
        prepare_s: float = _PREPARE_S,
    ) -> None:
        """As `run_open_loop`, but take each row only when its client is to start.

        For a virtual clock: on a real one, making a prompt would delay what is due.
        """
        loop = asyncio.get_running_loop()
        epoch_s = loop.time() + prepare_s
        try:
            async with asyncio.TaskGroup() as group:
                for work in works:
                    await asyncio.sleep(epoch_s + work.arrival_s - prepare_s - loop.time())
                    group.create_task(self._run_at_arrival(work, client_of, epoch_s, prepare_s))
        except ExceptionGroup as problems:  # requests keep theirs: this is from the rows
            raise problems.exceptions[0] from None

    async def _run_at_arrival(
        self, work: Work, client_of: Callable[[Work], Client], epoch_s: float, prepare_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        scheduled_s = epoch_s + work.arrival_s
        await asyncio.sleep(scheduled_s - prepare_s - loop.time())
        client = client_of(work)
        try:
            try:
                await client.start()
            except Exception as error:
                if not isinstance(error, PdError):
                    logger.exception("the client of request %d broke at its start", work.id)
                lag_s = max(loop.time() - scheduled_s, 0.0)
                self._add(work, None, lag_s, work.arrival_s, f"{type(error).__name__}: {error}")
                return
            await asyncio.sleep(scheduled_s - loop.time())
            await self._run(work, client, scheduled_s, work.arrival_s)
        finally:
            await client.close()

    async def _run(self, work: Work, client: Client, scheduled_s: float, arrival_s: float) -> None:
        session: DispatchedSession | None = None
        error: str | None = None
        lag_s = asyncio.get_running_loop().time() - scheduled_s
        try:
            async with asyncio.timeout(self._timeout_s):
                session = client.session(self._request_of(work), self._scheme)
                async for _ in session.run():
                    if self._progress is not None:
                        self._progress.token(work.id)
        except TimeoutError:
            error = f"TimeoutError: no end within {self._timeout_s:g} s"
        except PdError as failure:
            error = f"{type(failure).__name__}: {failure}"
        except Exception as failure:
            # The outermost frame of a request: one that breaks in an unforeseen way is a failed
            # request, and the others go on.
            logger.exception("request %d of %s broke", work.id, self._scheme)
            error = f"{type(failure).__name__}: {failure}"
        self._add(work, session.outcome if session else None, lag_s, arrival_s, error)

    def _add(
        self, work: Work, outcome: Outcome | None, lag_s: float, arrival_s: float, error: str | None
    ) -> None:
        outcome = outcome or Outcome("", self._scheme, 0, 0.0)
        sent = Dispatched(self._scheme, self._repeat, lag_s, arrival_s, error)
        record = self._make_record(work, outcome, sent)
        if self._on_end is not None:
            self._on_end(record, outcome)
            return
        self.records.append(record)
        if work.id in self._watched:
            self.timelines.append(timeline_of(record, outcome))
        if self._progress is not None:
            self._progress.ended(record)


def record_of(work: Work, outcome: Outcome, sent: Dispatched) -> RequestRecord:
    """Return the record of a request; instants count from its scheduled arrival.

    An answer that ended in order but has another length than its row has failed.
    """
    error = sent.error
    if error is None and outcome.error is not None:
        error = f"{type(outcome.error).__name__}: {outcome.error}"
    if error is None and len(outcome.shown) != work.output_tokens:
        error = f"the answer has {len(outcome.shown)} tokens instead of {work.output_tokens}"
    shown_at_s = tuple(sent.lag_s + shown.at_s for shown in outcome.shown)
    return RequestRecord(
        id=work.id,
        line=work.line,
        repeat=sent.repeat,
        scheme=sent.scheme,
        arrival_s=sent.arrival_s,
        dispatch_lag_s=sent.lag_s,
        prompt_tokens=len(work.prompt_token_ids),
        output_tokens=work.output_tokens,
        planned_tokens=outcome.planned_tokens,
        handoff_position=outcome.handoff_position,
        cloud_tokens=outcome.cloud_tokens,
        cloud_tokens_generated=outcome.cloud_tokens_generated,
        device_tokens=outcome.device_tokens,
        disagreed=outcome.disagreed,
        exactness=outcome.exactness,
        ttft_s=shown_at_s[0] if shown_at_s else None,
        tpot_s=outcome.tpot_s,
        e2e_s=shown_at_s[-1] if shown_at_s else None,
        largest_gap_s=outcome.largest_gap_s,
        handoff_gap_s=outcome.handoff_gap_s,
        shown_at_s=shown_at_s,
        output_sha256=output_sha256(outcome.token_ids),
        error=error,
        notes=tuple(outcome.notes),
    )


def timeline_of(record: RequestRecord, outcome: Outcome) -> Timeline:
    """Return a request token by token; instants count from its scheduled arrival."""
    lag_s = record.dispatch_lag_s
    return Timeline(
        id=record.id,
        scheme=record.scheme,
        repeat=record.repeat,
        prompt_tokens=record.prompt_tokens,
        arrived_at_s=tuple(lag_s + at_s for at_s in outcome.arrived_at_s),
        shown_at_s=record.shown_at_s,
        sources="".join(shown.origin.value[0] for shown in outcome.shown),
    )
