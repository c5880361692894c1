"""A device's settings; this module imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.host.cpu import MAX_THREADS
from pd_core.identity.numerics import NUMERICS
from pd_core.settings.option import Option, Part
from pd_core.speculation.speculation import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.device.promise_settings import PromiseSettings
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, SpeedProfile, device_profile
from pd_device_client.session.reading_pace import usual_gap_s

__all__ = ["ENGINES", "DeviceSettings", "LogLevel", "ModeOption"]

ENGINES = ("torch", "llama-cpp")

ModeOption = Annotated[Mode, Option("Which sides make the answer.")]
LogLevel = Annotated[
    str, Option("Least severe records logged.", choices=("debug", "info", "warning", "error"))
]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """The model, the promise to the reader, and how the local engine runs.

    Raises:
        ConfigError: there is no such device profile, an option of an engine that is not used, or
            promises that contradict each other.
    """

    model: Annotated[str, Option(MODEL_HELP, may_be_path=True)] = DEFAULT_MODEL
    pace_s: Annotated[
        float,
        *(Ge(0.001), Le(60)),
        Option("Seconds between shown tokens; 0.2 is reading pace.", "pace"),
    ] = 0.05
    reading_wpm: Annotated[
        float | None,
        *(Ge(1), Le(10000)),
        Option(
            "Words a minute to show, by the answer's own tokens per word, instead of --pace.",
            instead_of="pace",
        ),
    ] = None
    ttft_s: Annotated[
        float | None,
        *(Ge(0.001), Le(3600)),
        Option("Latest time for the first token, in seconds; default: the earliest.", "ttft"),
    ] = None
    promises: Annotated[PromiseSettings, Part("Promise")] = field(default_factory=PromiseSettings)
    throttle: Annotated[
        str | None,
        Option(
            "Slow the local engine to a device profile.", choices=tuple(sorted(DEVICE_PROFILES))
        ),
    ] = None
    num_threads: Annotated[
        int | None,
        *(Ge(1), Le(MAX_THREADS)),
        Option("Threads of the local engine; if unset, measured once.", "threads"),
    ] = None
    polite: Annotated[
        bool, Option("Give way: to other programs, and on a low battery use one thread.")
    ] = True
    numerics: Annotated[
        str,
        Option(
            "integer: 8-bit weights, faster, equal on all machines; auto: for large models.",
            choices=NUMERICS,
        ),
    ] = "auto"
    fast_numerics: Annotated[
        bool, Option("Faster float32, but no longer bit-equal with the cloud.")
    ] = False
    kept_kv_mib: Annotated[int, Ge(0), Option("KV cache kept for conversations' next turns.")] = 256
    speculate: Annotated[
        int,
        *(Ge(0), Le(MAX_DRAFT_TOKENS)),
        Option("Most tokens guessed from the text and checked in one pass; 0 is off."),
    ] = DEFAULT_DRAFT_TOKENS
    local_seqs: Annotated[
        int,
        Ge(1),
        Option("Answers that the local engine works on at once; others wait."),
    ] = 1
    engine: Annotated[
        str,
        Option("What runs the model here; llama-cpp runs any GGUF file.", choices=ENGINES),
    ] = "torch"
    context_tokens: Annotated[
        int | None,
        Ge(16),
        Option(
            "Room for a prompt and its answer, whose memory llama-cpp takes at the start; default: "
            "the model's, at most 8192. torch takes memory as it goes."
        ),
    ] = None
    otel: Annotated[
        bool, Option("Send OpenTelemetry spans (extra otel) to OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = False

    def __post_init__(self) -> None:
        _ = self.slowed_to
        _ = self.promise
        floor = self.promises.quality_floor
        if floor < 1.0 and self.engine == "llama-cpp":
            raise ConfigError(
                f"--quality-floor {floor:g} leaves out parts of prompts, which "
                "llama-cpp reads only as a whole; do without it, or give --engine torch"
            )
        if self.context_tokens is not None and self.engine != "llama-cpp":
            raise ConfigError(
                "--context-tokens is how much memory llama-cpp takes at the start; leave it out, "
                "or give --engine llama-cpp"
            )

    @property
    def promise(self) -> Promise:
        """What the reader is promised."""
        return self.promises.promise(self.planned_pace_s, self.ttft_s, self.reading_wpm)

    @property
    def slowed_to(self) -> SpeedProfile | None:
        """The profile to which the local engine is slowed down, or None."""
        return device_profile(self.throttle) if self.throttle else None

    @property
    def planned_pace_s(self) -> float:
        """The pace to plan with: a reading speed's for usual text, if one is set."""
        return self.pace_s if self.reading_wpm is None else usual_gap_s(self.reading_wpm)

    @property
    def kept_kv_bytes(self) -> int:
        """`kept_kv_mib` in bytes; 0 keeps none."""
        return self.kept_kv_mib << 20
