"""Good manners: fewer threads while other programs want the cores, or the battery is low."""

from collections.abc import Callable
from enum import StrEnum

from pd_core.host.other_load import OtherLoad
from pd_device_client.device.battery import Battery, BatteryPolicy, read_battery

__all__ = ["GivesWay", "Manners"]

_LOOK_S = 1.0
_BATTERY_S = 30.0


class GivesWay(StrEnum):
    """To what an engine gives way."""

    NOTHING = "nothing"
    PROGRAMS = "other programs"
    BATTERY = "low battery"


class Manners:
    """Says how many threads are polite now; cheap enough to be asked before each pass.

    Args:
        cores: of the machine, over which the load is spread.
        most: threads that this process may use at best.
        policy: when the battery is spared.
        clock: seconds; may be called from any thread.
        others: returns how many cores other processes keep busy; None: not yet known.
        battery: reads the battery.

    Attributes:
        gives_way: to what, as of the last look.
        calm: no other program was found to want the cores, nor is that unknown.
    """

    def __init__(
        self,
        cores: int,
        most: int,
        policy: BatteryPolicy,
        clock: Callable[[], float],
        *,
        others: Callable[[], float | None] | None = None,
        battery: Callable[[], Battery | None] = read_battery,
    ) -> None:
        self._cores = cores
        self._most = most
        self._policy = policy
        self._others = others or OtherLoad().cores
        self._battery = battery
        self._clock = clock
        self._now = most
        self._looked_s = clock() - _LOOK_S
        self._battery_s = clock() - _BATTERY_S
        self._low = False
        self.gives_way = GivesWay.NOTHING
        self.calm = False

    def most_threads(self) -> int:
        """Return how many threads the engine may use now: at least one.

        As many as there are cores that others leave free, rounded; on a low battery one. It looks
        once a second; for others' processes it counts what they used since it last looked.
        """
        now_s = self._clock()
        if now_s - self._looked_s < _LOOK_S:
            return self._now
        self._looked_s = now_s
        if now_s - self._battery_s >= _BATTERY_S:
            self._battery_s = now_s
            self._low = self._policy.spares(self._battery())
        others = self._others()
        free = max(1, min(self._most, round(self._cores - (others or 0.0))))
        self.calm = others is not None and free == self._most
        self._now = 1 if self._low else free
        self.gives_way = GivesWay.NOTHING
        if self._now < self._most:
            self.gives_way = GivesWay.BATTERY if self._low else GivesWay.PROGRAMS
        return self._now
