"""What a replay is asked to do, checked before anything starts."""

from dataclasses import dataclass

from pd_bench.harness.bounds import check_counts, check_pace, check_timeout
from pd_bench.replay.schemes import SCHEMES, Scheme, parse_schemes
from pd_bench.replay.trace_run import TraceRun
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.planning.profiles import (
    LinkProfile,
    SpeedProfile,
    device_profile,
    link_profile,
)

__all__ = ["FIDELITIES", "ReplaySettings"]

FIDELITIES = ("real", "fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings(TraceRun):
    """Every input of a replay; those of a TraceRun are not told again.

    Attributes:
        schemes: names of the schemes to compare, in order (pd_bench.replay.schemes).
        fidelity: "real" or "fleet" (DESIGN 8).
        device_profile: name of the devices' speed; None: the real device's own (real only).
        link_profile: name of the link's; "loopback" emulates nothing.
        temperature: 0 means greedy.
        repeat: passes over the trace; the order of the schemes rotates.
        model: of our own server and of real devices.
        max_num_seqs: slots of our own server.
        cloud: use this server instead of our own.

    Raises:
        ConfigError: a name is unknown (the known ones are listed) or a value is out of range.
        InvalidSamplingParams: the temperature or the seed is.
    """

    schemes: tuple[str, ...] = SCHEMES
    fidelity: str = "fleet"
    device_profile: str | None = None
    link_profile: str = "loopback"
    temperature: float = 0.0
    repeat: int = 1
    model: str = DEFAULT_MODEL
    max_num_seqs: int = 16
    cloud: CloudAddress | None = None

    def __post_init__(self) -> None:
        parse_schemes(self.schemes)
        _known("fidelity", (self.fidelity,), FIDELITIES)
        if self.device_profile is not None:
            device_profile(self.device_profile)
        elif self.fidelity == "fleet":
            raise ConfigError("a fleet's devices are emulated: name their --device-profile")
        link_profile(self.link_profile)
        check_pace(self.pace_s)
        check_timeout(self.timeout_s, self.pace_s)
        check_counts(
            {
                "--max-prompt-tokens": self.max_prompt_tokens,
                "--max-output-tokens": self.max_output_tokens,
                "--repeat": self.repeat,
                "--max-num-seqs": self.max_num_seqs,
            }
        )
        SamplingParams(temperature=self.temperature, seed=self.seed)  # refuses what it cannot do

    @property
    def speed(self) -> SpeedProfile | None:
        """The devices' speed profile; None: the real device's own speed."""
        return None if self.device_profile is None else device_profile(self.device_profile)

    @property
    def link(self) -> LinkProfile:
        """The link's profile."""
        return link_profile(self.link_profile)

    @property
    def sampler(self) -> str:
        """The sampler the fidelity needs on the cloud."""
        return "rolling-hash" if self.fidelity == "fleet" else "model"

    @property
    def scheme_labels(self) -> tuple[str, ...]:
        """What a reader must know of the schemes, in words."""
        return tuple(label for scheme in parse_schemes(self.schemes) for label in scheme.labels)

    def scheme_order(self, repeat: int) -> tuple[Scheme, ...]:
        """Return the schemes of a pass, rotated so that none always comes first."""
        schemes = parse_schemes(self.schemes)
        first = repeat % len(schemes)
        return schemes[first:] + schemes[:first]


def _known(kind: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
