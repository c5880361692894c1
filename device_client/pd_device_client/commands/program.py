"""The commands of `pd-device` that have settings, and the settings that `doctor` checks."""

from dataclasses import dataclass, field
from typing import Annotated

from pd_core.settings.option import Option, Part
from pd_core.settings.program import Program
from pd_device_client.api.http.door import Door
from pd_device_client.api.settings import ServeSettings
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.commands.calibrate import CalibrateSettings
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.terminal.plan_settings import PlanSettings
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["PROGRAM", "DoctorSettings"]


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """The checked part of the settings of `serve`."""

    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    device: Annotated[DeviceSettings, Part("Device", ("model", "engine", "kept_kv_mib"))] = field(
        default_factory=DeviceSettings
    )
    door: Annotated[Door, Part("Listening")] = field(default_factory=Door)
    settings: Annotated[
        bool, Option("Show built-in settings too, not only yours.", only_flag=True)
    ] = False


PROGRAM = Program(
    "pd-device",
    {
        "chat": ChatSettings,
        "serve": ServeSettings,
        "doctor": DoctorSettings,
        "calibrate": CalibrateSettings,
        "plan": PlanSettings,
    },
    tables={"doctor": "serve", "calibrate": "serve", "plan": "chat"},  # what these would run
    more_variables=("PD_DEVICE_HUB_TOKEN_FILE",),
)
"""The program, with the commands that read PD_DEVICE_... variables and the settings file."""
