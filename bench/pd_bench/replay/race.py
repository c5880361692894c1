"""A baseline: both sides start, and the first that answers carries the whole answer.

This is the dispatch of DiSCo (arXiv 2502.11417) with both sides always started, and without its
token handoff and its pacing: what a race alone gains and costs. The loser is cancelled when the
winner's first token is shown; what it computed until then is counted as its side's cost. A winner
that fails for good later fails the request: nothing was kept to go on from. (A cloud stream that
breaks is opened again, as in every scheme.)
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from pd_core.errors import BothEnginesFailed, PdError
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.happenings import Happened
from pd_device_client.contract.outcome import Outcome, Shown
from pd_device_client.session.session import Session

__all__ = ["RaceClient", "RaceSession"]

Told = Shown | Happened


class RaceClient:
    """Two clients of one side each.

    Args:
        cloud: a client without a local engine.
        device: a client without a link.
    """

    def __init__(self, cloud: DeviceClient, device: DeviceClient) -> None:
        self._cloud = cloud
        self._device = device

    async def start(self) -> None:
        """Start both.

        Raises:
            EngineError: the local engine failed.
        """
        await self._cloud.start()
        await self._device.start()

    async def close(self) -> None:
        """Close both."""
        await self._cloud.close()
        await self._device.close()

    def session(self, request: Ask, mode: str) -> "RaceSession":
        """Return a session of both sides, or of the one that can take the request.

        Raises:
            PdError: neither can; the cloud's reason.
        """
        sessions: list[Session] = []
        problems: list[PdError] = []
        for client, side in (
            (self._cloud, Mode.CLOUD_ONLY),
            (self._device, Mode.DEVICE_ONLY),
        ):
            try:
                sessions.append(client.session(replace(request, mode=side)))
            except PdError as error:
                problems.append(error)
        if not sessions:
            raise problems[0]
        return RaceSession(mode, sessions, [str(problem) for problem in problems])


class RaceSession:
    """One request in a race; iterate `run` once, then read `outcome`.

    Args:
        mode: the scheme's name.
        sessions: of the sides that take part, the cloud's first.
        notes: of the sides that do not.
    """

    def __init__(self, mode: str, sessions: list[Session], notes: list[str]) -> None:
        self._mode = mode
        self._sessions = sessions
        self._winner = sessions[0]
        self._notes = notes

    @property
    def outcome(self) -> Outcome:
        """The winner's, with what the loser made the cloud do."""
        generated = sum(s.outcome.cloud_tokens_generated for s in self._sessions)
        notes = [*self._notes, *self._winner.outcome.notes]
        return replace(
            self._winner.outcome, mode=self._mode, cloud_tokens_generated=generated, notes=notes
        )

    async def run(self) -> AsyncIterator[Told]:
        """Yield the winner's tokens as they come.

        Raises:
            PdError: both sides failed before a token, or the winner after it.
        """
        runs = {session: session.run() for session in self._sessions}
        firsts = {asyncio.ensure_future(_first(run)): session for session, run in runs.items()}
        losers: asyncio.Task[None] | None = None
        try:
            first = await self._race(firsts)
            # Concurrently: the winner's reader does not wait for the loser to stop.
            losers = asyncio.ensure_future(self._stop_losers(firsts, runs))
            yield first
            async for shown in runs[self._winner]:
                yield shown
        finally:
            if losers is not None:
                await losers
            else:
                await _stop(list(firsts), list(runs.values()))
            await runs[self._winner].aclose()

    async def _race(self, firsts: dict[asyncio.Task[Told], Session]) -> Told:
        """Wait for the first token of either side."""
        failures: list[PdError] = []
        pending = set(firsts)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in (task for task in firsts if task in done):  # the cloud's if both came
                try:
                    first = task.result()
                except PdError as failure:
                    failures.append(failure)
                else:
                    self._winner = firsts[task]
                    return first
        if len(failures) == 1:
            raise failures[0]
        raise BothEnginesFailed(
            "both sides failed in the race: " + "; ".join(str(failure) for failure in failures)
        )

    async def _stop_losers(
        self,
        firsts: dict[asyncio.Task[Told], Session],
        runs: dict[Session, AsyncGenerator[Told, None]],
    ) -> None:
        tasks = [task for task, session in firsts.items() if session is not self._winner]
        await _stop(tasks, [run for session, run in runs.items() if session is not self._winner])


async def _first(run: AsyncGenerator[Told, None]) -> Told:
    return await anext(run)


async def _stop(
    tasks: Sequence[asyncio.Task[Told]], runs: Sequence[AsyncGenerator[Told, None]]
) -> None:
    """Cancel what waits for a first token, and close the answers it would have come from."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, PdError):
            await task
    for run in runs:
        await run.aclose()
