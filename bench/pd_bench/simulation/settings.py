"""The inputs of a simulation, checked before anything starts."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pd_bench.harness.bounds import check_pace, check_timeout
from pd_bench.replay.schemes import SCHEMES, Scheme, SchemesOption, parse_schemes
from pd_bench.replay.trace_run import TraceRun
from pd_bench.results.result import STALL_FACTOR, Distribution
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES, CloudProfile, read_cloud_profile
from pd_bench.simulation.device_mix import DeviceMix
from pd_bench.simulation.kept_promise import KeptPromise
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_core.settings.option import Option
from pd_device_client.contract.promise import Promise
from pd_device_client.planning.speeds.profile_values import read_device_profile
from pd_device_client.planning.speeds.profiles import (
    DEVICE_PROFILES,
    LINK_PROFILES,
    LinkProfile,
    SpeedProfile,
    link_profile,
)

__all__ = ["SimulationSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings(TraceRun):
    """Every input of a simulation; those of a TraceRun are not told again.

    Attributes:
        foresight: compute at once what only a device can still generate; same figures, faster.
        timer_lag_s: how late the clients' timers fire; None: on time.
        mix: the devices' classes, if they are of several; then no row has `device` or `link`.

    Raises:
        ConfigError: a name is unknown (the known ones are listed) or a value is out of range.
        InvalidSamplingParams: the seed is out of range.
        InvalidRequest: a promise is out of range, or contradicts the pace.
    """

    device: Annotated[
        SpeedProfile,
        Option(
            f"One of {', '.join(sorted(DEVICE_PROFILES))}, or a file made by "
            "`pd-device calibrate`.",
            "device-profile",
            read=read_device_profile,
        ),
    ]
    cloud: Annotated[
        CloudProfile,
        Option(
            f"One of {', '.join(sorted(CLOUD_PROFILES))}, or a file made by `pd-bench profile`.",
            "cloud-profile",
            read=read_cloud_profile,
        ),
    ]
    link_profile: Annotated[str, Option(f"One of {', '.join(sorted(LINK_PROFILES))}.", "link")] = (
        "wifi"
    )
    schemes: SchemesOption = SCHEMES
    past: Annotated[
        Path | None,
        Option("A trace of earlier answers, by whose lengths devices plan; not the one simulated."),
    ] = None
    ttft_s: Annotated[float | None, Option("Promised: the first token within seconds.", "ttft")] = (
        None
    )
    largest_gap_s: Annotated[
        float | None,
        Option(
            "Promised: no gap longer; up to it a slow device's pace is stretched.", "largest-gap"
        ),
    ] = None
    keep_requests: Annotated[int, Option("Hold N requests of a scheme in the document.")] = 256
    foresight: bool = True
    timer_lag_s: Distribution | None = None
    mix: DeviceMix | None = None

    def __post_init__(self) -> None:
        if self.past is not None and self.past.resolve() == self.trace.resolve():
            raise ConfigError(
                f"--past is {self.past}, the trace that is simulated: devices would know answers "
                "that are still to come; name another, or an earlier part of it"
            )
        parse_schemes(self.schemes, planned=self.mix is not None)
        link_profile(self.link_profile)
        _ = self.promise
        check_pace(self.pace_s)
        check_timeout(self.timeout_s, self.pace_s)
        if self.keep_requests < 0:
            raise ConfigError(f"--keep-requests is {self.keep_requests}; it must be 0 or more")
        assert not (self.foresight and self.timer_lag_s), "lateness cannot be foreseen"
        SamplingParams(seed=self.seed)  # refuses what it cannot do

    @property
    def promise(self) -> Promise:
        """What the planner is to keep."""
        return Promise(self.pace_s, self.ttft_s, self.largest_gap_s)

    @property
    def kept_promise(self) -> KeptPromise:
        """What a request is judged by: without a promised gap, two paces."""
        gap_s = STALL_FACTOR * self.pace_s if self.largest_gap_s is None else self.largest_gap_s
        return KeptPromise(math.inf if self.ttft_s is None else self.ttft_s, gap_s)

    @property
    def link(self) -> LinkProfile:
        """The link's profile."""
        return link_profile(self.link_profile)

    @property
    def devices(self) -> str:
        """The devices and their link, in words."""
        return f"{self.device.name} over {self.link.name}" if self.mix is None else self.mix.words

    @property
    def parsed_schemes(self) -> tuple[Scheme, ...]:
        """The schemes to compare."""
        return parse_schemes(self.schemes, planned=self.mix is not None)
