"""What a simulation is asked to do, checked before anything starts."""

from dataclasses import dataclass

from pd_bench.harness.bounds import check_pace, check_timeout
from pd_bench.replay.schemes import SCHEMES, Scheme, parse_schemes
from pd_bench.replay.trace_run import TraceRun
from pd_bench.results.result import Distribution
from pd_bench.simulation.cloud_profile import CloudProfile
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_device_client.planning.profiles import LinkProfile, SpeedProfile, link_profile

__all__ = ["SimulationSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings(TraceRun):
    """Every input of a simulation; those of a TraceRun are not told again.

    Attributes:
        device: the devices' speed.
        cloud: the cloud's.
        link_profile: name of the link's profile.
        schemes: names of what to compare, in order.
        keep_requests: so many requests are kept whole in the document.
        foresight: work out at once what only a device can still make; the same figures, sooner.
        timer_lag_s: how late the clients' timers ring; None: they are punctual.

    Raises:
        ConfigError: a name is unknown (the known ones are listed) or a value is out of range.
        InvalidSamplingParams: the seed is out of range.
    """

    device: SpeedProfile
    cloud: CloudProfile
    link_profile: str = "wifi"
    schemes: tuple[str, ...] = SCHEMES
    keep_requests: int = 256
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
