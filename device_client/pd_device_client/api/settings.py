"""What `pd-device serve` is told: the device, its door, and the answers' defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from pd_core.host.loopback import is_loopback
from pd_core.settings.option import Option, Part
from pd_device_client.api.door import Door
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.contract.ask import Mode
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.settings import DeviceSettings, LogLevel, ModeOption

__all__ = ["AnswerSettings", "ServeSettings"]


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """What holds where a request is silent."""

    mode: ModeOption = Mode.PD_DEVICE
    max_tokens: Annotated[int, Ge(1), Option("Limit of a chat's answer that names none.")] = 1024
    battery: Annotated[BatteryPolicy, Part("Answer")] = field(default_factory=BatteryPolicy)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """All of it.

    Raises:
        ConfigError: it would listen beyond loopback without a key.
    """

    answers: Annotated[AnswerSettings, Part("Answer")] = field(default_factory=AnswerSettings)
    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    device: Annotated[DeviceSettings, Part("Device")] = field(default_factory=DeviceSettings)
    door: Annotated[Door, Part("Listening")] = field(default_factory=Door)
    max_requests: Annotated[int, Ge(1), Option("Answers carried at once; more are refused.")] = 64
    keep_alive_s: Annotated[
        float,
        Ge(0),
        Option("Unload the model after so many seconds without a request; 0: never.", "keep-alive"),
    ] = 0.0
    allowed_hosts: Annotated[
        tuple[str, ...],
        Option("A further name of this machine in clients' addresses; repeatable.", "allowed-host"),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Option(
            "A page's origin that may use the API, http://HOST:PORT; repeatable.", "allowed-origin"
        ),
    ] = ()
    ready_file: Annotated[
        Path | None, Option("When serving, write address and process id here.")
    ] = None
    answer_log: Annotated[
        Path | None,
        Option("Append a line of JSON for every answer: when tokens were shown, not which."),
    ] = None
    demo: Annotated[
        bool, Option("Start a cloud on this machine too, and slow this device down to see it.")
    ] = False
    log_level: LogLevel = "warning"

    def __post_init__(self) -> None:
        self.door.key()

    @property
    def cloud_settable(self) -> bool:
        """Whether another cloud may be chosen while it serves.

        Who chooses the cloud sees everybody's prompts, so nobody may who is not on this machine.
        """
        local = is_loopback(self.door.host) and not (self.allowed_hosts or self.allowed_origins)
        return local and self.answers.mode is not Mode.DEVICE_ONLY
