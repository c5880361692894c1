"""When the device stands in for a cloud that is to make the whole rest of an answer.

It comes only when the reader would otherwise wait, and goes once the cloud suffices again: a side
that works along for nothing costs power here, or another reader's time there.
"""

from pd_device_client.planning.planner import Plan, is_below_pace
from pd_device_client.session.clock import loop_time
from pd_device_client.session.cloud_leg import CloudLeg, LegState
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.handoff import Handoff
from pd_device_client.session.seen import Seen
from pd_device_client.session.sides import Sides
from pd_device_client.session.token_log import TokenLog

__all__ = ["StandIn"]

# The device is ready this long before the reader needs it; forecasts err.
_SPARE_S = 0.5
# The device stays beside a cloud for which it had to come this often.
_MOST_TIMES = 2


class StandIn:
    """Decides for one request in cloud-only, planned so or become so.

    Args:
        plan: the request's plan.
        sides: the estimates.
        log: what is committed.
        seen: what the reader has seen.
        cloud: the cloud's leg.
        device: the device's leg.
        handoff: says when a token is due.
    """

    def __init__(
        self,
        plan: Plan,
        sides: Sides,
        log: TokenLog,
        seen: Seen,
        cloud: CloudLeg,
        device: DeviceLeg,
        handoff: Handoff,
    ) -> None:
        self._plan = plan
        self._sides = sides
        self._log = log
        self._seen = seen
        self._cloud = cloud
        self._device = device
        self._handoff = handoff
        self._times = 0

    def wanted_in_s(self) -> float:
        """Seconds until the device should start; 0 or less: now.

        A cloud that is late, or that is tried again after a failure, is waited for as long as the
        reader has tokens left that cover the device's way to the next one.
        """
        cloud, now_s = self._cloud, loop_time()
        if cloud.state is LegState.FAILED:
            return 0.0
        trouble_in_s = 0.0 if cloud.broken else cloud.late_at_s() - now_s
        if trouble_in_s > 0 or not self._seen.shown:
            return trouble_in_s
        position = self._log.length
        return self._handoff.due_s(position) - self._device.ready_s(position) - _SPARE_S

    def came(self) -> None:
        """The device was started."""
        self._times += 1

    def is_over(self) -> bool:
        """Whether the cloud makes the rest well enough without the device."""
        cloud, log = self._cloud, self._log
        if log.claimed_at is not None or self._times >= _MOST_TIMES:
            return False
        if not cloud.coming or cloud.broken or cloud.late or log.open_to_device:
            return False  # it has yet to reach the end of the log
        step_s = self._sides.cloud_estimate.step_s
        slow = is_below_pace(step_s, self._plan.pace_s)
        return not slow or self._handoff.cloud_is_faster
