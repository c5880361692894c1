"""The settings of `pd-device serve`: the device, where it listens, and the answers' defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from pd_core.settings.option import Option, Part
from pd_core.sockets.loopback import is_loopback
from pd_device_client.api.http.door import Door
from pd_device_client.api.tools.answer_parser import ReasoningChoice, ToolParserChoice
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.contract.ask import Mode
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.settings import DeviceSettings, LogLevel, ModeOption

__all__ = ["AnswerSettings", "ServeSettings"]


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """The defaults for requests."""

    mode: ModeOption = Mode.PD_DEVICE
    max_tokens: Annotated[int, Ge(1), Option("Default token limit of a chat's answer.")] = 1024
    tool_parser: Annotated[
        ToolParserChoice,
        Option("How the model writes calls of functions; auto: as its chat template teaches."),
    ] = ToolParserChoice.AUTO
    reasoning_parser: Annotated[
        ReasoningChoice,
        Option("Split <think>...</think> off answers; auto: if the chat template knows it."),
    ] = ReasoningChoice.AUTO
    battery: Annotated[BatteryPolicy, Part("Answer")] = field(default_factory=BatteryPolicy)
    stored_responses: Annotated[
        int,
        Ge(0),
        Option("Responses kept in memory for previous_response_id; the oldest go first. 0: none."),
    ] = 256
    stored_mib: Annotated[
        int, Ge(1), Option("Most memory that they may take, as JSON.", "stored-responses-mib")
    ] = 64


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """All settings of the command.

    Raises:
        ConfigError: it would listen beyond loopback without a key.
        ContradictoryPromises: the mode cannot keep the promise.
    """

    answers: Annotated[AnswerSettings, Part("Answer")] = field(default_factory=AnswerSettings)
    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    device: Annotated[DeviceSettings, Part("Device")] = field(default_factory=DeviceSettings)
    door: Annotated[Door, Part("Listening")] = field(default_factory=Door)
    max_requests: Annotated[int, Ge(1), Option("Answers at the same time; more are refused.")] = 64
    keep_alive_s: Annotated[
        float,
        Ge(0),
        Option("Unload the model after this many idle seconds; 0: never.", "keep-alive"),
    ] = 0.0
    allowed_hosts: Annotated[
        tuple[str, ...],
        Option("Another name of this machine that clients may use; repeatable.", "allowed-host"),
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
        self.device.promise.check_mode(self.answers.mode)

    @property
    def cloud_settable(self) -> bool:
        """Whether another cloud may be chosen while the device serves.

        The chosen cloud sees every user's prompts, so only this machine's users may choose it.
        """
        local = is_loopback(self.door.host) and not (self.allowed_hosts or self.allowed_origins)
        return local and self.mode is not Mode.DEVICE_ONLY

    @property
    def mode(self) -> Mode:
        """The mode of the process: with local-only privacy nothing may leave it."""
        return Mode.DEVICE_ONLY if self.device.promises.local_only else self.answers.mode
