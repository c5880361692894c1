"""Speeds of named clouds, for plans without one."""

from dataclasses import dataclass

from pd_core.errors import ConfigError
from pd_device_client.planning.handoff_time import CloudForecast
from pd_device_client.planning.speeds.profiles import TOKEN_BYTES, LinkProfile

__all__ = ["CLOUD_SPEEDS", "CloudSpeeds", "cloud_speeds"]


@dataclass(frozen=True, slots=True)
class CloudSpeeds:
    """How fast an idle cloud is.

    Attributes:
        name: its name.
        source: where the figures come from.
        prefill_token_s: seconds per token of a prompt.
        step_s: seconds per token that it makes.
    """

    name: str
    source: str
    prefill_token_s: float
    step_s: float

    def forecast(self, prompt_tokens: int, link: LinkProfile) -> CloudForecast:
        """Return its forecast over a link."""
        sent_s = 0.0 if link.bytes_per_s is None else prompt_tokens * TOKEN_BYTES / link.bytes_per_s
        first_s = link.rtt_s + sent_s + prompt_tokens * self.prefill_token_s + self.step_s
        return CloudForecast(first_s, self.step_s)


_BY_ARITHMETIC = (
    "arithmetic, not a measurement: 8e9 parameters in bf16 at 70 % of {bandwidth} TB/s and half of "
    "{peak} TFLOP/s"
)

CLOUD_SPEEDS: dict[str, CloudSpeeds] = {
    speeds.name: speeds
    for speeds in (
        CloudSpeeds("gpu-8b", _BY_ARITHMETIC.format(bandwidth=3.35, peak=990), 3.23e-5, 0.00683),
        CloudSpeeds(
            "small-gpu-8b", _BY_ARITHMETIC.format(bandwidth=0.86, peak=242), 1.32e-4, 0.0266
        ),
    )
}


def cloud_speeds(name: str) -> CloudSpeeds:
    """Return the named cloud's speeds, or raise ConfigError listing the known ones."""
    if name not in CLOUD_SPEEDS:
        known = ", ".join(sorted(CLOUD_SPEEDS))
        raise ConfigError(f"unknown cloud profile {name!r}; known profiles: {known}")
    return CLOUD_SPEEDS[name]
