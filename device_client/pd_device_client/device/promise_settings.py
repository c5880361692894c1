"""What the user promises the reader, and what the cloud may be used for; no torch is imported."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.settings.option import Option, Part
from pd_device_client.contract.promise import Promise
from pd_device_client.planning.cloud_allowance import CloudCaps
from pd_device_client.privacy.rules import LocalOnlyRules

__all__ = ["LOCAL_ONLY", "PromiseSettings"]

LOCAL_ONLY = "local-only"

_Tokens = Ge(0)
_Money = (Ge(0), Le(1e9))


@dataclass(frozen=True, slots=True)
class PromiseSettings:
    """The promise beyond pace and first token, and the caps on the cloud.

    Raises:
        ConfigError: a cap on the cost, and no price.
    """

    largest_gap_s: Annotated[
        float | None,
        *(Ge(0.001), Le(3600)),
        Option(
            "Longest gap allowed; up to it the pace of a slow device is stretched.", "largest-gap"
        ),
    ] = None
    quality_floor: Annotated[
        float,
        *(Ge(0.05), Le(1)),
        Option("Least share of a prompt read here; below 1 is sooner ready, and not exact."),
    ] = 1.0
    privacy: Annotated[
        str,
        Option(
            "local-only sends nothing of any request off this machine.",
            choices=("cloud", LOCAL_ONLY),
        ),
    ] = "cloud"
    rules: Annotated[LocalOnlyRules, Part("Promise")] = field(default_factory=LocalOnlyRules)
    cloud_tokens_per_request: Annotated[
        int | None, _Tokens, Option("Most tokens that the cloud may make for one answer.")
    ] = None
    cloud_tokens_per_day: Annotated[
        int | None, _Tokens, Option("Most tokens that the cloud may make on one day.")
    ] = None
    cloud_cost_per_request: Annotated[
        float | None, *_Money, Option("Most money for one answer, at the prices given.")
    ] = None
    cloud_cost_per_day: Annotated[
        float | None, *_Money, Option("Most money for one day, at the prices given.")
    ] = None
    cloud_prompt_price: Annotated[
        float, *_Money, Option("Money for a million tokens of prompts sent to the cloud.")
    ] = 0.0
    cloud_answer_price: Annotated[
        float, *_Money, Option("Money for a million tokens that the cloud makes.")
    ] = 0.0

    def __post_init__(self) -> None:
        _ = self.caps

    @property
    def local_only(self) -> bool:
        """Whether nothing may leave this machine."""
        return self.privacy == LOCAL_ONLY

    @property
    def caps(self) -> CloudCaps:
        """The caps on the cloud."""
        return CloudCaps(
            self.cloud_tokens_per_request,
            self.cloud_tokens_per_day,
            self.cloud_cost_per_request,
            self.cloud_cost_per_day,
            self.cloud_prompt_price,
            self.cloud_answer_price,
        )

    def promise(
        self, pace_s: float, ttft_s: float | None, reading_wpm: float | None = None
    ) -> Promise:
        """Return the whole promise.

        Raises:
            ConfigError: it contradicts itself.
        """
        if self.largest_gap_s is not None and self.largest_gap_s < pace_s:
            pace = f"--pace {pace_s:g} s"
            if reading_wpm is not None:
                pace = f"the {pace_s:.2g} s between tokens at --reading-wpm {reading_wpm:g}"
            raise ConfigError(
                f"--largest-gap is {self.largest_gap_s:g} s, and {pace} is longer; "
                "allow a longer gap, or ask for a faster pace"
            )
        return Promise(
            pace_s,
            ttft_s,
            largest_gap_s=self.largest_gap_s,
            quality_floor=self.quality_floor,
            max_cloud_tokens=self.cloud_tokens_per_request,
            max_cloud_cost=self.cloud_cost_per_request,
            local_only=self.local_only,
            reading_wpm=reading_wpm,
        )
