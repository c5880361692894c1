"""The commands of `pd-device` that have settings, and what `doctor` looks at of them."""

from dataclasses import dataclass, field
from typing import Annotated

from pd_core.settings.option import Option, Part
from pd_core.settings.program import Program
from pd_device_client.api.door import Door
from pd_device_client.api.settings import ServeSettings
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["PROGRAM", "DoctorSettings"]


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """What is looked at: a part of what `serve` would run."""

    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    device: Annotated[DeviceSettings, Part("Device", ("model", "kept_kv_mib"))] = field(
        default_factory=DeviceSettings
    )
    door: Annotated[Door, Part("Listening")] = field(default_factory=Door)
    settings: Annotated[
        bool, Option("Show built-in settings too, not only yours.", only_flag=True)
    ] = False


PROGRAM = Program(
    "pd-device",
    {"chat": ChatSettings, "serve": ServeSettings, "doctor": DoctorSettings},
    tables={"doctor": "serve"},  # it looks at what serve would run
)
"""Whose variables are PD_DEVICE_..., and which of its commands read the settings file."""
