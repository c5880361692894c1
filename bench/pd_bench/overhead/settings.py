"""What the measurements of our own costs take, checked before anything starts."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from pd_bench.harness.bounds import check_between, check_pace
from pd_core.errors import ConfigError
from pd_core.settings.option import Option
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP, RANDOM_TINY
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, SpeedProfile, device_profile

__all__ = [
    "LEADING_GAPS",
    "ApiSettings",
    "GapsSettings",
    "OverheadSettings",
    "StartupSettings",
    "StreamsSettings",
    "TickerSettings",
    "TurnsSettings",
]

LEADING_GAPS = 5
"""A stream's first gaps are not counted: the round's other streams are still being opened."""

_MOST = 100_000


def _name_of(profile: SpeedProfile) -> str:
    return profile.name


@dataclass(frozen=True, slots=True)
class OverheadSettings:
    """What to measure of a session's own cost."""

    pace_s: Annotated[float, Option("Seconds between shown tokens.", "pace")] = 0.02
    num_tokens: Annotated[
        int, Ge(8), Le(1_000_000), Option("Paced tokens to measure.", "tokens")
    ] = 1000

    def __post_init__(self) -> None:
        check_pace(self.pace_s)


@dataclass(frozen=True, slots=True)
class TickerSettings:
    """What to measure of the event loop's lateness."""

    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    prompt_tokens: Annotated[
        int, Ge(1), Option("Length of the prompts; at most the model's context.")
    ] = 8192
    duration_s: Annotated[
        float, Ge(0.1), Le(3600), Option("Seconds of idle and of busy time.", "duration")
    ] = 10.0


@dataclass(frozen=True, slots=True)
class StreamsSettings:
    """What to measure of open streams; smaller numbers of them are measured first."""

    num_streams: Annotated[int, Ge(1), Le(_MOST), Option("Streams open at once.", "number")] = 2000
    step_s: Annotated[float, Option("Seconds between a stream's tokens.", "step")] = 1.0
    groups: Annotated[
        int,
        Ge(1),
        Le(_MOST),
        Option("Groups that get their tokens in turn; 1: all at once.", "turns"),
    ] = 20
    num_tokens: Annotated[
        int, Ge(1), Le(_MOST), Option("Measured tokens of each stream.", "tokens")
    ] = 10

    def __post_init__(self) -> None:
        if min(self.num_streams, self.groups, self.num_tokens) < 1:
            raise ConfigError("streams, groups and tokens must be positive")
        check_between("--step", self.step_s, 0.001, 60, "seconds")

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of streams: one, a tenth, and all."""
        return tuple(sorted({1, max(1, self.num_streams // 10), self.num_streams}))


@dataclass(frozen=True, slots=True)
class GapsSettings:
    """What to measure of streams' gaps; the model's context must hold the prompts."""

    model: Annotated[str, Option(MODEL_HELP)] = RANDOM_TINY
    num_decodes: Annotated[
        int, Ge(1), Le(1000), Option("Streams whose gaps are measured.", "decodes")
    ] = 4
    num_prefills: Annotated[int, Ge(1), Le(1000), Option("Long prompts in flight.", "prefills")] = 2
    prompt_tokens: Annotated[int, Ge(1), Le(10_000_000), Option("Length of a long prompt.")] = 4096
    num_tokens: Annotated[
        int, Ge(8), Le(_MOST), Option("Tokens per stream and round.", "tokens")
    ] = 200
    rounds: Annotated[int, Ge(1), Le(_MOST), Option("Quiet and busy rounds each.")] = 5

    def __post_init__(self) -> None:
        least = min(self.num_decodes, self.num_prefills, self.prompt_tokens, self.rounds)
        if least < 1 or self.num_tokens <= LEADING_GAPS + 1:
            raise ConfigError(
                f"decodes, prefills, prompt and rounds must be positive, and a stream needs more "
                f"than {LEADING_GAPS + 1} tokens"
            )


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What to measure of the device's HTTP API."""

    pace_s: Annotated[float, Ge(0.001), Le(60), Option("Seconds between shown tokens.", "pace")] = (
        0.02
    )
    num_tokens: Annotated[int, Ge(8), Le(_MOST), Option("Tokens per round.", "tokens")] = 250
    rounds: Annotated[int, Ge(1), Le(_MOST), Option("Rounds of each kind.")] = 4
    chats: Annotated[int, Ge(1), Le(10_000), Option("Chats at once against one device.")] = 100
    chat_tokens: Annotated[int, Ge(2), Le(_MOST), Option("Tokens of each chat's answer.")] = 32


@dataclass(frozen=True, slots=True)
class TurnsSettings:
    """What to measure of a conversation's two turns.

    Attributes:
        pace_s: seconds between shown tokens.
    """

    model: Annotated[str, Option(MODEL_HELP)] = RANDOM_TINY
    profile: Annotated[
        SpeedProfile,
        Option(
            "The profile to slow the device to.",
            "device-profile",
            read=device_profile,
            written=_name_of,
        ),
    ] = DEVICE_PROFILES["slow"]
    prompt_tokens: Annotated[int, Ge(2), Option("Tokens of the first turn.")] = 2000
    answer_tokens: Annotated[int, Ge(2), Option("Tokens of each answer.")] = 64
    words_tokens: Annotated[int, Ge(1), Option("New tokens of the second turn.")] = 50
    pace_s: float = 0.1
    rounds: Annotated[int, Ge(1), Le(_MOST), Option("Conversations.")] = 3


@dataclass(frozen=True, slots=True)
class StartupSettings:
    """What to start."""

    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    rounds: Annotated[int, Ge(1), Le(1000), Option("Starts of each kind.")] = 5
