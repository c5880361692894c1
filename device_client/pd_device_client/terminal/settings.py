"""The settings of `pd-device chat`."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from pd_core.settings.option import Argument, Option, Part
from pd_device_client.cloud.settings import CloudSettings
from pd_device_client.contract.ask import Mode
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.settings import DeviceSettings, LogLevel, ModeOption

__all__ = ["ChatSettings"]

_OFFERED = (
    "model",
    "engine",
    "context_tokens",
    "pace_s",
    "reading_wpm",
    "ttft_s",
    "promises",
    "throttle",
    "num_threads",
    "numerics",
    "fast_numerics",
)


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """One answer, or a conversation.

    Raises:
        ContradictoryPromises: the mode cannot keep the promise.
    """

    prompt: Annotated[
        str | None,
        Argument(
            "The prompt; - reads it from standard input. Without one, a terminal gets a "
            "conversation."
        ),
    ] = None
    device: Annotated[DeviceSettings, Part("Device", _OFFERED)] = field(
        default_factory=DeviceSettings
    )
    mode: ModeOption = Mode.PD_DEVICE
    max_tokens: Annotated[int, Ge(1), Option("Token limit of the answer.")] = 128
    temperature: Annotated[float | None, Option("0 is greedy; default: the model's own.")] = None
    top_k: Annotated[int | None, Option("Keep the k most likely tokens; 0 keeps all.")] = None
    top_p: Annotated[float | None, Option("Keep the most likely tokens up to this mass.")] = None
    min_p: Annotated[
        float | None, Option("Keep tokens this many times as likely as the first; 0 keeps all.")
    ] = None
    repetition_penalty: Annotated[
        float | None, Option("Divide the logits of tokens that came before; 1 is off.")
    ] = None
    presence_penalty: Annotated[
        float | None, Option("What a token of the answer costs when it comes again; 0 is off.")
    ] = None
    frequency_penalty: Annotated[
        float | None, Option("The same, for each time that it came before; 0 is off.")
    ] = None
    seed: Annotated[
        int | None, Option("The same seed gives the same answer; drawn when not given.")
    ] = None
    stop_strings: Annotated[
        tuple[str, ...], Option("End the answer before this text; may be repeated.", "stop")
    ] = ()
    raw: Annotated[bool, Option("Continue PROMPT as it is, without the model's chat template.")] = (
        False
    )
    show_origin: Annotated[bool, Option("Tint tokens by their origin; end with the figures.")] = (
        False
    )
    no_history: Annotated[
        bool,
        Option("Do not keep a conversation's prompts for the arrow keys of the next one."),
    ] = False
    battery: Annotated[BatteryPolicy, Part("Device")] = field(default_factory=BatteryPolicy)
    cloud: Annotated[CloudSettings, Part("Cloud")] = field(default_factory=CloudSettings)
    log_level: LogLevel = "error"

    def __post_init__(self) -> None:
        self.device.promise.check_mode(self.mode)

    @property
    def way_mode(self) -> Mode:
        """The mode by which a way out is opened: with local-only privacy there is none."""
        return Mode.DEVICE_ONLY if self.device.promises.local_only else self.mode
