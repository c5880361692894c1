"""What a simulation is asked to do, checked before anything starts."""

from dataclasses import dataclass
from pathlib import Path

from pd_bench.harness.bounds import check_pace, check_timeout
from pd_bench.replay.schemes import SCHEMES, Scheme, parse_schemes
from pd_bench.results.result import Distribution
from pd_bench.simulation.cloud_profile import CloudProfile
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_device_client.planning.profiles import LinkProfile, SpeedProfile, link_profile

__all__ = ["SimulationSettings"]


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """Every input of a simulation.

    Attributes:
        trace: the trace's file.
        device: the devices' speed.
        cloud: the cloud's.
        link_profile: name of the link's profile.
        schemes: names of what to compare, in order.
        pace_s: seconds between shown tokens asked of every scheme's controller.
        limit: the first so many rows; None: all.
        max_prompt_tokens: longer prompts are cut; None: to what the context has room for.
        max_output_tokens: longer answers are cut; the token limit of every request.
        seed: of prompts, sampling and every spread.
        timeout_s: a request that takes longer has failed.
        keep_requests: so many requests are kept whole in the document.
        skip_broken: leave broken rows of the trace out, and count them.
        foresight: work out at once what only a device can still make; the same figures, sooner.
        timer_lag_s: how late the clients' timers ring; None: they are punctual.

    Raises:
        ConfigError: a name is unknown (the known ones are listed) or a value is out of range.
        InvalidSamplingParams: the seed is out of range.
    """

    trace: Path
    device: SpeedProfile
    cloud: CloudProfile
    link_profile: str = "wifi"
    schemes: tuple[str, ...] = SCHEMES
    pace_s: float = 0.1
    limit: int | None = None
    max_prompt_tokens: int | None = None
    max_output_tokens: int = 1024
    seed: int = 0
    timeout_s: float = 600.0
    keep_requests: int = 256
    skip_broken: bool = False
    foresight: bool = True
    timer_lag_s: Distribution | None = None

    def __post_init__(self) -> None:
        parse_schemes(self.schemes)
        link_profile(self.link_profile)
        check_pace(self.pace_s)
        check_timeout(self.timeout_s, self.pace_s)
        if self.keep_requests < 0:
            raise ConfigError(f"--keep-requests is {self.keep_requests}; it must be 0 or more")
        assert not (self.foresight and self.timer_lag_s), "lateness cannot be foreseen"
        SamplingParams(seed=self.seed)  # refuses what it cannot do

    @property
    def link(self) -> LinkProfile:
        """The link's profile."""
        return link_profile(self.link_profile)

    @property
    def parsed_schemes(self) -> tuple[Scheme, ...]:
        """The schemes to compare."""
        return parse_schemes(self.schemes)
