"""The settings of a replay, checked before anything starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pd_bench.harness.bounds import check_counts, check_pace, check_timeout
from pd_bench.replay.schemes import SCHEMES, Scheme, SchemesOption, parse_schemes
from pd_bench.replay.trace_run import TraceRun
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_core.settings.option import Option
from pd_core.sockets.loopback import is_loopback
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.planning.speeds.profile_values import read_device_profile
from pd_device_client.planning.speeds.profiles import (
    DEVICE_PROFILES,
    LINK_PROFILES,
    LinkProfile,
    SpeedProfile,
    link_profile,
)

__all__ = ["FIDELITIES", "ReplaySettings"]

FIDELITIES = ("real", "fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings(TraceRun):
    """Every input of a replay, beside those of a TraceRun.

    Attributes:
        cloud: use this server instead of our own.

    Raises:
        ConfigError: a name is unknown (the known ones are listed) or a value is out of range.
        InvalidSamplingParams: the temperature or the seed is.
    """

    schemes: SchemesOption = SCHEMES
    fidelity: Annotated[str, Option(f"One of {', '.join(FIDELITIES)}.")] = "fleet"
    device_profile: Annotated[
        str | None,
        Option(
            f"Speed of the devices: {', '.join(sorted(DEVICE_PROFILES))}, or a file made by "
            "`pd-device calibrate`; a real one needs none."
        ),
    ] = None
    link_profile: Annotated[str, Option(f"One of {', '.join(sorted(LINK_PROFILES))}.")] = "loopback"
    temperature: Annotated[float, Option("0 is greedy.")] = 0.0
    repeat: Annotated[int, Option("Passes; the schemes' order rotates.")] = 1
    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    text: Annotated[
        Path | None,
        Option("Prompts are pieces of this text file, for a real device; else made-up ids."),
    ] = None
    max_num_seqs: Annotated[int, Option("Slots of our own server.")] = 16
    cloud: CloudAddress | None = None

    def __post_init__(self) -> None:
        parse_schemes(self.schemes)
        if self.fidelity not in FIDELITIES:
            known = ", ".join(FIDELITIES)
            raise ConfigError(f"unknown fidelity {self.fidelity!r}; known: {known}")
        if self.device_profile is not None:
            read_device_profile(self.device_profile)
        elif self.fidelity == "fleet":
            raise ConfigError("a fleet's devices are emulated: name their --device-profile")
        if self.text is not None and self.fidelity != "real":
            raise ConfigError("--text is for --fidelity real: emulated devices read no text")
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
        SamplingParams(temperature=self.temperature, seed=self.seed)  # checks both

    @property
    def speed(self) -> SpeedProfile | None:
        """The devices' speed profile; None: the real device's own speed."""
        name = self.device_profile
        return None if name is None else read_device_profile(name)

    @property
    def cloud_is_here(self) -> bool:
        """Whether the server runs on this machine: our own does."""
        return self.cloud is None or is_loopback(self.cloud.host)

    @property
    def link(self) -> LinkProfile:
        """The link's profile."""
        return link_profile(self.link_profile)

    @property
    def sampler(self) -> str:
        """The sampler that the fidelity needs on the cloud."""
        return "rolling-hash" if self.fidelity == "fleet" else "model"

    @property
    def scheme_labels(self) -> tuple[str, ...]:
        """The document's notes on the schemes."""
        return tuple(label for scheme in parse_schemes(self.schemes) for label in scheme.labels)

    def scheme_order(self, repeat: int) -> tuple[Scheme, ...]:
        """Return the schemes of a pass, rotated so that the first one changes."""
        schemes = parse_schemes(self.schemes)
        first = repeat % len(schemes)
        return schemes[first:] + schemes[:first]
