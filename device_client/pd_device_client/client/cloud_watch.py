"""What is known of one cloud, and when it is asked again: card, speed, and whether it is used."""

import asyncio
import logging
import math

from pd_core.errors import EngineError, PdError, TransportError
from pd_core.generation import ServerInfo
from pd_device_client.client.breaker import BreakerState, CircuitBreaker
from pd_device_client.client.handshake import Handshake, shake_hands
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudLink, EngineCard
from pd_device_client.planning.estimates import CloudEstimate

__all__ = ["CloudWatch"]

logger = logging.getLogger(__name__)

_CARD_FRESH_S = 5.0
_CARD_WAIT_S = 1.0  # for a fresh card, when one is asked for
_CARD_CALLS = 3  # the smallest answer time of these is the RTT
_PROBE_EVERY_S = 2.0  # of a cloud that is not in use


class CloudWatch:
    """Watches one cloud as long as it is the one in use.

    Args:
        link: the way to it; None: there is none, and nothing is ever known.
        engine: the local engine's card, which the cloud's is compared with; None without one.
        breaker: leaves a cloud alone that fails again and again.
        error: what is told of the cloud until it is met.

    Attributes:
        link: as given.
        info: its card; None before it was met, and while it cannot be reached.
        error: why it cannot be reached, or None.
        estimate: its speed.
        handshake: how this side and the cloud match, as far as is known.
    """

    def __init__(
        self,
        link: CloudLink | None,
        engine: EngineCard | None,
        breaker: CircuitBreaker | None = None,
        error: PdError | None = None,
    ) -> None:
        self.link = link
        self.info: ServerInfo | None = None
        self.error = error
        self.estimate = CloudEstimate()
        self.handshake = Handshake("", "", "identical")
        self._engine = engine
        self._breaker = breaker or CircuitBreaker()
        self._met_s = -math.inf  # when the card was last asked for
        self._refresh: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def left_alone(self) -> bool:
        """Whether the cloud failed so often that no answer is to wait for it now."""
        now_s = asyncio.get_running_loop().time()
        return self._breaker.state(now_s) is not BreakerState.CLOSED

    async def meet(self) -> None:
        """Ask for the card (again): load, RTT, fingerprints. That it cannot be had is no error."""
        if self.link is None:
            return
        loop = asyncio.get_running_loop()
        self._met_s = loop.time()
        answer_s = []
        try:
            for _ in range(_CARD_CALLS):
                asked_s = loop.time()
                info = await self.link.info()
                answer_s.append(loop.time() - asked_s)
        except PdError as error:
            if self._stopped:
                return  # another was chosen meanwhile
            logger.warning("the cloud cannot be used: %s", error)
            self.info, self.error = None, error
            self._breaker.failed(loop.time())
            self._recover()
            return
        self._breaker.answered()
        self.info, self.error = info, None
        self.estimate.rtt_s = min(answer_s)
        self.estimate.load = info.load
        if self._engine is not None:
            self.handshake = shake_hands(self._engine, info)

    def refresh(self) -> None:
        """Begin to renew the card where it is old; until it comes, the one at hand stays.

        Otherwise a cloud that was busy, or down, at start would never be asked again.
        """
        if self.link is None or (self._refresh is not None and not self._refresh.done()):
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._met_s > _CARD_FRESH_S:
            self._refresh = loop.create_task(self.meet())

    async def renew(self) -> None:
        """Renew the card where it is old; wait a moment for the answer."""
        if not self.left_alone:  # else it is asked now and then anyway
            self.refresh()
        if self._refresh is not None:
            await asyncio.wait({self._refresh}, timeout=_CARD_WAIT_S)

    def judge(self, outcome: Outcome) -> None:
        """Learn from an answer whether the cloud can be relied upon."""
        # That it is busy, or that the request is wrong, is no fault of the cloud's.
        if isinstance(outcome.cloud_error, TransportError | EngineError):
            self._breaker.failed(asyncio.get_running_loop().time())
            if self.left_alone:
                self._recover()
        elif outcome.cloud_error is None and outcome.cloud_tokens_generated:
            self._breaker.carried()

    def stop(self) -> None:
        """Ask no more. The link stays open for the answers that use it."""
        self._stopped = True
        for task in (self._refresh, self._recovery):
            if task is not None:
                task.cancel()

    def _recover(self) -> None:
        """Ask for the card now and then until the cloud can be used again."""
        if self._stopped or (self._recovery is not None and not self._recovery.done()):
            return
        self._recovery = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while self.info is None or self.left_alone:
            await asyncio.sleep(max(self._breaker.probe_in_s(loop.time()), _PROBE_EVERY_S))
            await self.meet()
        logger.info("the cloud can be used again")
