"""Where a request stands, seen from outside: what a simulation needs to work out the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pd_device_client.contract.outcome import GenerationRequest, Shown
from pd_device_client.planning.estimates import DeviceEstimate
from pd_device_client.planning.planner import Plan
from pd_device_client.session.cloud_leg import CloudLeg
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.token_log import TokenLog

__all__ = ["Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A request in the middle of its answer.

    Attributes:
        request: what is answered.
        plan: how.
        log: what is committed.
        cloud: the cloud's leg, or None.
        device: the device's leg, or None.
        estimate: of the device's speed.
        expected_tokens: N of the forecasts.
        shown: what the reader has seen.
        shown_s: when they saw the last of it.
        next_show_s: when the next token is shown; None while that is not known.
        submitted_s: when the request was submitted.
        show: shows the next token, at the loop's present.
    """

    request: GenerationRequest
    plan: Plan
    log: TokenLog
    cloud: CloudLeg | None
    device: DeviceLeg | None
    estimate: DeviceEstimate
    expected_tokens: int
    shown: Sequence[Shown]
    shown_s: float
    next_show_s: float | None
    submitted_s: float
    show: Callable[[], Shown]
