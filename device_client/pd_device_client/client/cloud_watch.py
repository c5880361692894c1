"""The state of one cloud: its card, its speed, and whether it is used."""

import asyncio
import logging
import math
from dataclasses import replace

from pd_core.errors import EngineError, PdError, TransportError
from pd_core.generation import ModelCard, ServerInfo
from pd_device_client.client.breaker import BreakerState, CircuitBreaker
from pd_device_client.client.handshake import ALONE, shake_hands
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudLink
from pd_device_client.planning.speeds.estimates import CloudEstimate

__all__ = ["CloudWatch"]

logger = logging.getLogger(__name__)

_CARD_FRESH_S = 5.0
_CARD_WAIT_S = 1.0  # longest wait of `renew`
_CARD_CALLS = 3  # the shortest of these calls is the RTT
_PROBE_EVERY_S = 2.0  # shortest wait between probes of an unusable cloud


class CloudWatch:
    """Watches one cloud while it is in use.

    Args:
        link: the link to it, or None.
        engine: the local engine's card, to compare with the cloud's; None without an engine.
        breaker: stops using a cloud that fails repeatedly.
        error: the value of `error` until the cloud is met.

    Attributes:
        link: as given.
        info: its card; None before it was met, and while it cannot be reached.
        error: why it cannot be reached, or None.
        estimate: its speed.
        handshake: the latest comparison of both sides.
    """

    def __init__(
        self,
        link: CloudLink | None,
        engine: ModelCard | None,
        breaker: CircuitBreaker | None = None,
        error: PdError | None = None,
    ) -> None:
        self.link = link
        self.info: ServerInfo | None = None
        self.error = error
        self.estimate = CloudEstimate()
        self.handshake = ALONE
        self._engine = engine
        self._breaker = breaker or CircuitBreaker()
        self._met_s = -math.inf  # when the card was last asked for
        self._refresh: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopped = False
        self._said_out = False  # the log says that the cloud cannot be used
        self._unproven = False  # an answer failed, so its card is no proof of its health

    @property
    def left_alone(self) -> bool:
        """Whether the breaker is open, so that no answer may wait for the cloud."""
        now_s = asyncio.get_running_loop().time()
        return self._breaker.state(now_s) is not BreakerState.CLOSED

    async def meet(self) -> None:
        """Fetch the card: load, RTT, fingerprints. A failure is stored in `error`, not raised."""
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
                return  # another cloud was chosen meanwhile
            self.info, self.error = None, error
            self._breaker.failed(loop.time())
            self._recover(error)
            return
        self._breaker.answered()
        self.info, self.error = info, None
        self.estimate.observe_rtts(answer_s)
        self.estimate.load = info.load
        shaken = ALONE if self._engine is None else shake_hands(self._engine, info.model)
        if not info.sealed:  # a bit that changes on the way would not be noticed
            shaken = replace(shaken, exactness="consistent")
        if info.exactness == "text":
            shaken = replace(shaken, exactness="text")
        self.handshake = shaken

    def refresh(self) -> None:
        """Start to renew the card if it is old; the present one stays until then.

        Without this a cloud that was busy or down at start would never be asked again.
        """
        if self.link is None or (self._refresh is not None and not self._refresh.done()):
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._met_s > _CARD_FRESH_S:
            self._refresh = loop.create_task(self.meet())

    async def renew(self) -> None:
        """Renew the card if it is old, and wait briefly for the answer."""
        if not self.left_alone:  # else `_probe` asks for it
            self.refresh()
        if self._refresh is not None:
            await asyncio.wait({self._refresh}, timeout=_CARD_WAIT_S)

    def judge(self, outcome: Outcome) -> None:
        """Report an answer's outcome to the breaker."""
        # A busy cloud, or a bad request, is no failure of the cloud.
        if isinstance(outcome.cloud_error, TransportError | EngineError):
            self._breaker.failed(asyncio.get_running_loop().time())
            self._unproven = True
            if self.left_alone:
                self._recover(outcome.cloud_error)
        elif outcome.cloud_error is None and outcome.cloud_tokens_generated:
            self._breaker.carried()
            self._unproven = False
            if not self._recovers:
                self._back()

    def stop(self) -> None:
        """Stop watching. The link stays open for the answers that use it."""
        self._stopped = True
        for task in (self._refresh, self._recovery):
            if task is not None:
                task.cancel()

    def _recover(self, error: PdError) -> None:
        """Start to probe the cloud until it can be used again; `error` is why it cannot be.

        That is said once, and so is its end: a dead cloud fails every request and every probe.
        """
        if self._stopped or self._recovers:
            return
        if not self._said_out:
            logger.warning("the cloud cannot be used, until further word: %s", error)
            self._said_out = True
        self._recovery = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while self.info is None or self.left_alone:
            await asyncio.sleep(max(self._breaker.probe_in_s(loop.time()), _PROBE_EVERY_S))
            await self.meet()
        if not self._unproven:
            self._back()

    @property
    def _recovers(self) -> bool:
        return self._recovery is not None and not self._recovery.done()

    def _back(self) -> None:
        if self._said_out:
            logger.warning("the cloud can be used again")
            self._said_out = False
