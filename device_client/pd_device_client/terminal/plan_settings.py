"""The settings of `pd-device plan`."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.settings.option import Option, Part
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.contract.ask import Mode
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.settings import DeviceSettings, ModeOption
from pd_device_client.planning.speeds.cloud_speeds import CLOUD_SPEEDS
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, LINK_PROFILES

__all__ = ["PlanSettings"]

_MOST_TOKENS = 10_000_000
_DEVICE = (
    *("model", "engine", "pace_s", "reading_wpm", "ttft_s"),
    *("promises", "num_threads", "numerics"),
)


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """One request, and where the speeds of both sides come from.

    Raises:
        ContradictoryPromises: the mode cannot keep the promise.
    """

    prompt_tokens: Annotated[
        int, Ge(1), Le(_MOST_TOKENS), Option("Tokens of the prompt.", only_flag=True)
    ] = 1024
    output_tokens: Annotated[
        int,
        *(Ge(1), Le(_MOST_TOKENS)),
        Option("Tokens of the answer, as far as most have at most.", only_flag=True),
    ] = 256
    device: Annotated[DeviceSettings, Part("Device", _DEVICE)] = field(
        default_factory=DeviceSettings
    )
    device_profile: Annotated[
        str | None,
        Option(
            f"One of {', '.join(sorted(DEVICE_PROFILES))}, or a file of `pd-device calibrate`; "
            "without one this device's model is loaded and its speed taken.",
            only_flag=True,
        ),
    ] = None
    battery: Annotated[BatteryPolicy, Part("Device")] = field(default_factory=BatteryPolicy)
    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    cloud_profile: Annotated[
        str | None,
        Option(
            "A named cloud that is idle, instead of --cloud, which is asked for its load.",
            choices=tuple(sorted(CLOUD_SPEEDS)),
            only_flag=True,
        ),
    ] = None
    link: Annotated[
        str,
        Option("The link to a named cloud.", choices=tuple(sorted(LINK_PROFILES)), only_flag=True),
    ] = "wifi"
    mode: ModeOption = Mode.PD_DEVICE
    explain: Annotated[
        bool,
        Option("Say what else was considered, and draw a time line.", only_flag=True),
    ] = False
    json: Annotated[bool, Option("Print the plan as JSON.", only_flag=True)] = False

    def __post_init__(self) -> None:
        self.device.promise.check_mode(self.mode)
