"""Sparing a low battery: answers come from the cloud, if there is one."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.settings.option import Option

__all__ = ["Battery", "BatteryPolicy", "read_battery"]


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery's state.

    Attributes:
        percent: its charge.
        plugged: whether the machine runs on mains; None where the system does not say, as some do
            not for a battery that is neither charging nor discharging.
    """

    percent: float
    plugged: bool | None


@dataclass(frozen=True, slots=True)
class BatteryPolicy:
    """When the local engine is spared."""

    spare_below_percent: Annotated[
        float,
        *(Ge(0), Le(100)),
        Option(
            "On battery below this percentage the cloud makes the answers; 0: never.", "spare-below"
        ),
    ] = 20.0

    def spares(self, battery: Battery | None) -> bool:
        """Whether to spare the engine now; never without a discharging battery."""
        if battery is None or battery.plugged is not False:
            return False
        return battery.percent < self.spare_below_percent


def read_battery() -> Battery | None:
    """Return this machine's battery, or None where there is none or it cannot be read."""
    import psutil  # here, as --help imports this module

    read = getattr(psutil, "sensors_battery", None)  # not on every system
    state = read() if read is not None else None
    if state is None:
        return None
    return Battery(percent=float(state.percent), plugged=state.power_plugged)
