"""What a low battery changes: the cloud carries answers as long as there is one."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.settings.option import Option
from pd_device_client.contract.ask import Mode

__all__ = ["Battery", "BatteryPolicy", "read_battery"]


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery's state.

    Attributes:
        percent: of its charge.
        plugged: whether the machine runs on mains; None where the system does not say, as some do
            of a battery that is neither charged nor used.
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
            "On battery below this percentage the cloud carries answers; 0: never.", "spare-below"
        ),
    ] = 20.0

    def spares(self, battery: Battery | None) -> bool:
        """Whether the engine is to be spared now; never without a battery that is in use."""
        if battery is None or battery.plugged is not False:
            return False
        return battery.percent < self.spare_below_percent

    def mode(self, mode: Mode, battery: Battery | None, *, cloud_usable: bool) -> Mode:
        """Return the mode for a request that names none.

        What is to stay on the device stays there, whatever the battery says.
        """
        if mode is Mode.PD_DEVICE and cloud_usable and self.spares(battery):
            return Mode.CLOUD_ONLY
        return mode


def read_battery() -> Battery | None:
    """Return this machine's battery, or None where there is none or it cannot be read."""
    import psutil  # not for --help, which names the policy

    read = getattr(psutil, "sensors_battery", None)  # not on every system
    state = read() if read is not None else None
    if state is None:
        return None
    return Battery(percent=float(state.percent), plugged=state.power_plugged)
