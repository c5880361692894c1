"""What the reader's controller expects of both sides: when tokens will probably come, and how sure.

The decisions of a handoff guard a promise, so they count on slow passes (`Handoff.arrivals`). A
reader who is slowed down by every such fear sees the larger gaps at once. So this forecast has the
means, with their spreads, and the controller weighs them.
"""

import math

from pd_device_client.planning.speeds.outlook import DeviceOutlook, device_outlook
from pd_device_client.session.cloud_leg import CloudLeg
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.handoff import Handoff
from pd_device_client.session.sides import Sides
from pd_device_client.session.speed_controller import Arrivals
from pd_device_client.session.token_log import TokenLog

__all__ = ["ReaderOutlook", "decoded"]


class ReaderOutlook:
    """The forecast of one request's arrivals.

    Args:
        sides: the estimates.
        log: what is committed.
        cloud: the cloud's leg, or None.
        device: the device's leg, or None.
        handoff: knows how long the answer is expected to be.
    """

    def __init__(
        self,
        sides: Sides,
        log: TokenLog,
        cloud: CloudLeg | None,
        device: DeviceLeg | None,
        handoff: Handoff,
    ) -> None:
        self._sides = sides
        self._log = log
        self._cloud = cloud
        self._device = device
        self._handoff = handoff

    @property
    def helped(self) -> bool:
        """Whether one side would step in for the other if it were late."""
        return self._handoff.helped

    def arrivals(self) -> list[Arrivals]:
        """When uncommitted positions become available: the cloud's, then the device's."""
        log, cloud = self._log, self._cloud
        if log.closed:
            return []
        position = log.length
        if cloud is None or not cloud.coming or log.claimed_at is not None:
            line = self._device_line(position, None)
            return [] if line is None else [line]
        tail = self._cloud_tail(cloud, position)
        line = self._device_line(cloud.limit, tail)
        return [tail] if line is None else [tail, line]

    def _cloud_tail(self, cloud: CloudLeg, position: int) -> Arrivals:
        estimate = self._sides.cloud_estimate
        steps = estimate.steps.outlook(estimate.step_s)
        at_s, spread_s = cloud.probable_arrival_s(steps.mean)
        return Arrivals(
            position,
            cloud.limit - 1,
            at_s,
            steps.mean,
            at_sd_s=math.hypot(steps.spread, spread_s),
            step_sd_s=steps.spread,
        )

    def _device_line(self, position: int, tail: Arrivals | None) -> Arrivals | None:
        """The device's tokens from `position` on, which the cloud's come before."""
        device, last = self._device, self._handoff.reach(position)
        if device is None or not device.running or position > last:
            return None
        speeds = device_outlook(self._sides.device_estimate)
        at_s, spread_s = device.probably_ready_s(position, speeds)
        if tail is not None:
            after_s = tail.available_s(position - 1) + speeds.decode_s
            if after_s > at_s:
                at_s, spread_s = after_s, math.hypot(tail.spread_s(position - 1), spread_s)
        return decoded(position, last, at_s, spread_s, speeds)


def decoded(
    position: int, last: int, at_s: float, spread_s: float, speeds: DeviceOutlook
) -> Arrivals:
    """Return a device's own tokens, the first of which is there at `at_s`.

    Args:
        position: the first.
        last: the last.
        at_s: when the first is there.
        spread_s: the standard deviation of that.
        speeds: the device's.
    """
    decode_s, decode = speeds.decode_s, speeds.decode
    one_s = decode_s / decode.mean if decode.mean > 0 else 0.0
    return Arrivals(
        position,
        last,
        at_s,
        decode_s,
        at_sd_s=spread_s,
        step_sd_s=one_s * decode.spread,
    )
