"""The decisions behind a handoff: what is coming, when it is due, and which side should make it.

All are functions of the present state of one request; nothing here waits or changes anything.
"""

import asyncio
import bisect
import math

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.plan import PACE_TOLERANCE, RETURN_SLACK_S, Plan, is_below_pace
from pd_device_client.session.cloud_leg import CloudLeg, LegState
from pd_device_client.session.device_leg import DeviceLeg
from pd_device_client.session.seen import Seen
from pd_device_client.session.sides import Sides
from pd_device_client.session.speed_controller import Arrivals, steepest_slope_s
from pd_device_client.session.token_log import TokenLog

__all__ = ["LOST_TOLERANCE", "Handoff", "expected_last"]

LOST_TOLERANCE = 1.5
"""A claim is given back when the device's own gaps would exceed the pace by this factor."""

_LEAST_TURN = 0.5  # of a planned turn, with which the device may begin one
_SHORT_TURN = 0.25
_SHORT_TURNS = 3  # after so many the cloud makes the rest


class Handoff:
    """Forecasts of one request, and the claim policy of its device's leg.

    Args:
        plan: the request's plan.
        sides: the estimates.
        log: what is committed.
        seen: what the reader has seen.
        cloud: the cloud's leg, or None.
        device: the device's leg, or None.
        expected_tokens: N of the forecasts, a quantile of past answer lengths.
        max_tokens: the answer's token limit.

    Attributes:
        expected_tokens: as given, capped at max_tokens.
        mode: how the rest is carried; the session changes the plan's when it leaves the rest to
            the cloud.
    """

    def __init__(
        self,
        plan: Plan,
        sides: Sides,
        log: TokenLog,
        seen: Seen,
        cloud: CloudLeg | None,
        device: DeviceLeg | None,
        *,
        expected_tokens: int,
        max_tokens: int,
    ) -> None:
        self._plan = plan
        self._sides = sides
        self._log = log
        self._seen = seen
        self._cloud = cloud
        self._device = device
        self.expected_tokens = min(expected_tokens, max_tokens)
        self._max_tokens = max_tokens
        self.mode = plan.mode
        self._short_turns = 0

    @property
    def expected_last(self) -> int:
        """The expected last position of the answer."""
        return expected_last(self._log.length, self.expected_tokens, self._max_tokens)

    @property
    def helped(self) -> bool:
        """Whether one side would step in for the other if it were late."""
        if self._cloud is None or self._device is None or not self._plan.adapts:
            return False
        return self._cloud.state is not LegState.FAILED and self._device.error is None

    def due_s(self, position: int) -> float:
        """The instant at which `position` is due if the pace is kept from here on."""
        last = len(self._seen.shown) - 1
        if last < 0:
            # A token may have arrived whose text is still held back.
            first_s = self._cloud.first_token_s if self._cloud is not None else None
            first_s = asyncio.get_running_loop().time() if first_s is None else first_s
            return first_s + position * self._seen.pace_s
        return self._seen.last_s + (position - last) * self._seen.pace_s

    def tokens_for_no_seam(self) -> int:
        """Cloud tokens that the present forecast needs for an even pace; 0: no more than asked."""
        device, cloud = self._device, self._cloud
        if self._plan.mode is Mode.DEVICE_ONLY or device is None or cloud is None:
            return 0
        if not self._seen.shown or not self._plan.adapts:
            return 0
        pace_s = self._kept_pace_s
        if not cloud.coming and not self._cloud_helps(cloud, device.ready_s(self._log.length)):
            return 0
        limit = max(cloud.limit, self._log.length, len(self._seen.shown))
        if self.takes_turns:
            # What was asked for is for a whole turn; a forecast that errs may cost half of it.
            enough = self._slope_s(device, limit, _LEAST_TURN) <= pace_s
        else:
            # The controller smooths a smaller excess; a new stream costs a whole prefill.
            enough = self._slope_s(device, limit) <= pace_s * PACE_TOLERANCE
        if enough:
            return 0
        candidates = range(limit, self._max_tokens)
        found = bisect.bisect_left(
            candidates, True, key=lambda k: self._slope_s(device, k) <= pace_s
        )
        return limit + found

    @property
    def _kept_pace_s(self) -> float:
        """The pace that more of the cloud's tokens can keep: with a slower cloud, the cloud's."""
        return max(self._seen.pace_s, self._sides.cloud_estimate.step_s)

    def _cloud_helps(self, cloud: CloudLeg, ready_s: float) -> bool:
        """Whether the cloud would beat the device, ready then, to any expected position.

        The cloud's stream is the present one, or one opened now.
        """
        first, last = self._log.length, max(self.expected_last, self._log.length)
        steps = self._sides.cloud_estimate.step_s, self._sides.device_estimate.decode_s
        theirs = Arrivals(first, last, cloud.next_arrival_s(), steps[0])
        ours = Arrivals(first, last, ready_s, steps[1])
        return any(theirs.available_s(end) < ours.available_s(end) for end in (first, last))

    def _slope_s(self, device: DeviceLeg, limit: int, share: float = 1.0) -> float:
        """The smallest possible largest gap if the cloud makes all positions below `limit`.

        It falls as the limit rises, since absorbing a token costs the device less than decoding it.
        """
        decode_s = self._sides.device_estimate.decode_s
        last = self._carried_to(limit, share)
        tail = Arrivals(limit, last, device.ready_s(limit), decode_s)
        return steepest_slope_s(len(self._seen.shown) - 1, self._seen.last_s, [tail])

    def _carried_to(self, position: int, share: float = 1.0) -> int:
        """The last position up to which the device carries the answer on from `position`.

        That is the expected end or, where both sides take turns, the end of this share of a turn.
        """
        last = max(self.expected_last, position)
        if not self.takes_turns:
            return last
        return min(last, position + math.ceil(share * self._plan.turn_tokens) - 1)

    @property
    def takes_turns(self) -> bool:
        """Whether the device makes a stretch at a time, and the cloud the next ones ahead of it."""
        planned = self._plan.takes_turns and self.mode is Mode.PD_DEVICE
        return planned and self._short_turns < _SHORT_TURNS and self.device_is_below_pace

    def end_turn(self) -> None:
        """The device's turn is over; if such turns are too short, there are no more."""
        claimed_at = self._log.claimed_at
        if claimed_at is not None:
            made = self._log.length - claimed_at
            self._short_turns += made < self._plan.turn_tokens * _SHORT_TURN

    def reach(self, position: int) -> int:
        """The last position that the device will make if it goes on at `position`."""
        last = max(self.expected_last, self._log.length)
        if self._cloud is not None and self.takes_turns:
            last = min(last, position + self._way_back_tokens() - 1)
        return last

    def _way_back_tokens(self) -> int:
        """How many tokens the device makes until a cloud that is called now has come."""
        cloud, estimate = self._cloud, self._sides.device_estimate
        assert cloud is not None, "turns need a cloud"
        away_s = cloud.next_arrival_s() - asyncio.get_running_loop().time()
        return math.ceil((away_s + RETURN_SLACK_S) / estimate.decode_s)

    @property
    def device_is_below_pace(self) -> bool:
        """Whether the device decodes more slowly than the reader should read.

        Then no handoff holds the pace for longer than the tokens that the reader has not seen.
        """
        return is_below_pace(self._sides.device_estimate.usual_decode_s, self._seen.pace_s)

    @property
    def cloud_is_faster(self) -> bool:
        """Whether the cloud usually makes its tokens faster than the device does.

        By more than is smoothed: a stream that is hardly faster takes long to overtake the device,
        and all that while both make the same tokens.
        """
        step_s = self._sides.cloud_estimate.usual_step_s
        return step_s * PACE_TOLERANCE < self._sides.device_estimate.usual_decode_s

    def cloud_should_finish(self) -> bool:
        """Whether, with both sides at work, the cloud should make the rest and the device stop.

        A device below the pace may still save the end of an answer, as planned. But where the cloud
        would have to make most of what is expected, or the device has taken over and fallen behind,
        the device's work would be for nothing.
        """
        if not self._plan.adapts or not self.device_is_below_pace or not self.cloud_is_faster:
            return False
        if self._cloud is None or self._cloud.broken or self.takes_turns:
            return False
        if self._log.claimed_at is not None:
            return self.promise_is_lost()
        needed = self.tokens_for_no_seam()
        return needed > self._cloud.limit and needed > (self.expected_last + 1) / 2

    def promise_is_lost(self) -> bool:
        """Whether, after the claim, the device is so far behind that the cloud should continue.

        The device may slow down or hang, or the answer may be much longer than expected. Where both
        take turns, it is so before the reader's store ends: the cloud needs time to come.
        """
        cloud, device = self._cloud, self._device
        if self._log.claimed_at is None or cloud is None or device is None or not self._seen.shown:
            return False
        if self._plan.mode is Mode.DEVICE_ONLY or not self._plan.adapts or not cloud.ready:
            return False
        slope_s = steepest_slope_s(len(self._seen.shown) - 1, self._seen.last_s, self.arrivals())
        tolerance = 1.0 if self.takes_turns else LOST_TOLERANCE
        if slope_s <= self._seen.pace_s * tolerance:
            return False
        return self._cloud_helps(cloud, device.ready_s(self._log.length))

    def arrivals(self) -> list[Arrivals]:
        """Forecast when uncommitted positions become available: the cloud's, then the device's."""
        if self._log.closed:
            return []
        pieces = []
        position = self._log.length
        cloud, device, sides = self._cloud, self._device, self._sides
        if cloud is not None and cloud.coming and self._log.claimed_at is None:
            step_s = sides.cloud_estimate.step_s
            pieces.append(Arrivals(position, cloud.limit - 1, cloud.next_arrival_s(), step_s))
            position = cloud.limit
        last = self.reach(position)
        if device is not None and device.running and position <= last:
            decode_s = sides.device_estimate.decode_s
            ready_s = device.ready_s(position)
            if pieces:
                ready_s = max(ready_s, pieces[0].available_s(position - 1) + decode_s)
            pieces.append(Arrivals(position, last, ready_s, decode_s))
        return pieces

    def may_claim(self, ready_s: float) -> bool:
        """Whether all cloud tokens arrived, or the pace holds to the end without the rest."""
        position = self._log.length
        if self._cloud is None or self._cloud.state is LegState.FAILED:
            return True
        if self._only_for_a_stall:
            stalled = not self._log.open_to_device and self._overdue_in_s() <= 0
            return self._cloud.broken or stalled
        if not self._cloud.coming:
            # All k arrived. If they do not last until the device is ready, ask for more first:
            # the claim stops the cloud.
            return self.tokens_for_no_seam() <= self._cloud.limit
        due_s, pace_s = self.due_s(position), self._kept_pace_s
        decode_s = self._sides.device_estimate.decode_s
        if not self._log.open_to_device and self._overdue_in_s() <= 0:
            return True
        if not self._plan.adapts:
            return False
        overtaken = self.cloud_is_faster and self._cloud_helps(self._cloud, ready_s)
        if self._log.open_to_device and not overtaken:
            return True  # the device is ahead, and stays so for long: the stream is for nothing
        if self._seen.shown:
            # If the cloud's token is overdue, being ready before it arrives is enough.
            due_s = max(due_s, self._cloud.next_arrival_s())
        left = max(self._carried_to(position) - position, 0)
        return ready_s + left * max(decode_s - pace_s, 0.0) <= due_s

    @property
    def _only_for_a_stall(self) -> bool:
        """Whether the rest is the cloud's unless it fails or stalls, as the device is too slow."""
        left = self.mode is Mode.CLOUD_ONLY
        return left and self.device_is_below_pace and self.cloud_is_faster

    def hold_s(self, pass_s: float) -> float:
        """Seconds by which to delay a catch-up pass; 0 means run it now.

        A pass costs at least a decode step, so one that would still run when the last cloud token
        arrives only delays the final pass. But the delay must leave the device time to step in
        if the cloud falls silent.
        """
        cloud = self._cloud
        if cloud is None or not cloud.coming:
            return 0.0
        now, length = asyncio.get_running_loop().time(), self._log.length
        step_s = self._sides.cloud_estimate.step_s
        last_arrival_s = cloud.next_arrival_s() + (cloud.limit - 1 - length) * step_s
        if now + pass_s <= last_arrival_s:
            return 0.0
        return max(min(last_arrival_s, self.due_s(length) - pass_s) - now, 0.0)

    def patience_s(self) -> float | None:
        """Seconds until the cloud's next token is overdue; None when none is coming."""
        if self._cloud is None or not self._cloud.coming:
            return None
        return max(self._overdue_in_s(), 0.001)

    def _overdue_in_s(self) -> float:
        """Seconds until the cloud's next token is so late that the device should go ahead."""
        slack_s = max(self._seen.pace_s, self._sides.device_estimate.decode_s)
        overdue_s = self.due_s(self._log.length) + slack_s
        if self._cloud is not None and self._only_for_a_stall:
            overdue_s = max(overdue_s, self._cloud.late_at_s())
        return overdue_s - asyncio.get_running_loop().time()


def expected_last(length: int, expected_tokens: int, max_tokens: int) -> int:
    """Return the expected last position of an answer that has `length` tokens so far.

    An answer past its expected length is expected to double.
    """
    expected = expected_tokens if length < expected_tokens else 2 * length
    return min(expected, max_tokens) - 1
