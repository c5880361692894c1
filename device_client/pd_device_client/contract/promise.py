"""What the reader is promised, in the reader's own terms, and by which sides it may be kept."""

import math
from dataclasses import dataclass
from enum import StrEnum

from pd_core.errors import ContradictoryPromises, InvalidRequest

__all__ = ["Mode", "Promise"]


class Mode(StrEnum):
    """Which sides generate the answer."""

    DEVICE_ONLY = "device-only"
    CLOUD_ONLY = "cloud-only"
    PD_DEVICE = "pd-device"

    @classmethod
    def parse(cls, name: str) -> "Mode":
        """Return the mode called `name`, or raise InvalidRequest listing the known ones."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(mode.value for mode in cls)
            raise InvalidRequest(f"unknown mode {name!r}; known modes: {known}") from None


@dataclass(frozen=True, slots=True)
class Promise:
    """What the reader is promised.

    Privacy, the caps and the least keep ratio are never broken. The times are kept if any plan can.

    Attributes:
        pace_s: tau, the gap between two shown tokens; 0 shows each token as soon as it exists.
        ttft_s: the latest time for the first token; None means as early as either side can.
        largest_gap_s: the longest gap; up to it the pace may be stretched to save the cloud. None:
            the pace is not stretched.
        quality_floor: rho may fall to this share of the prompt; 1 is exact.
        max_cloud_tokens: most tokens that the cloud may make for the request, in all its streams
            and unused ones included; None: no cap.
        max_cloud_cost: the same for the money that the cloud takes for the request.
        local_only: nothing of the request may leave this machine.
        reading_wpm: words a minute to show instead; `pace_s` is then only what is planned with.
        spare_device: prefer the cloud, as the battery is low; the caps and privacy come first.

    Raises:
        InvalidRequest: a value is not a number, or out of its range.
        ContradictoryPromises: two of them cannot both be kept.
    """

    pace_s: float
    ttft_s: float | None = None
    largest_gap_s: float | None = None
    quality_floor: float = 1.0
    max_cloud_tokens: int | None = None
    max_cloud_cost: float | None = None
    local_only: bool = False
    spare_device: bool = False
    reading_wpm: float | None = None

    def __post_init__(self) -> None:
        _check("the pace", self.pace_s, self.pace_s >= 0, "0 or more seconds")
        if self.ttft_s is not None:
            _check("the promised first token", self.ttft_s, self.ttft_s > 0, "above 0 seconds")
        keep = self.quality_floor
        _check("the least keep ratio", keep, 0 < keep <= 1, "above 0 and at most 1")
        cap = self.max_cloud_tokens
        if cap is not None:
            _check("the cap on cloud tokens", cap, cap >= 0, "0 or more")
        cost = self.max_cloud_cost
        if cost is not None:
            _check("the cap on the cloud's cost", cost, cost >= 0, "0 or more")
        gap = self.largest_gap_s
        if gap is None:
            return
        _check("the largest gap", gap, gap > 0, "above 0 seconds")
        if gap < self.pace_s:
            raise ContradictoryPromises(
                f"a largest gap of {gap:g} s is promised with a pace of {self.pace_s:g} s, which "
                "is longer; promise a longer gap, or ask for a faster pace"
            )

    @property
    def gap_limit_s(self) -> float:
        """The longest gap that breaks no promise."""
        return self.pace_s if self.largest_gap_s is None else self.largest_gap_s

    def check_mode(self, mode: Mode) -> None:
        """Refuse a mode in which the promise cannot be kept.

        Raises:
            ContradictoryPromises: the message names both.
        """
        if mode is not Mode.CLOUD_ONLY:
            return
        if self.local_only:
            raise ContradictoryPromises(
                "privacy is local-only, and the mode is cloud-only; drop one of the two"
            )
        if self.max_cloud_tokens == 0:
            raise ContradictoryPromises(
                "the cap on cloud tokens is 0, and the mode is cloud-only; raise the cap, or take "
                "another mode"
            )


def _check(what: str, value: float, holds: bool, allowed: str) -> None:
    if not (holds and math.isfinite(value)):
        raise InvalidRequest(f"{what} is {value:g}; it must be {allowed}")
