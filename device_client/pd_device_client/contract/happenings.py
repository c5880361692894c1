"""What happens while an answer is carried, beside the tokens that are shown.

A session works the same whether it is watched or not. How much happens is bounded by the tokens of
prompt and answer: one thing for each of the cloud's messages, and one for each of the device's
passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pd_core.errors import PdError

__all__ = [
    "ClaimReturned",
    "Claimed",
    "CloudArrived",
    "CloudAsked",
    "CloudFailed",
    "DeviceBegan",
    "DeviceFailed",
    "DevicePassed",
    "Happened",
    "Happening",
    "Tell",
    "silent",
]


@dataclass(frozen=True, slots=True)
class CloudAsked:
    """The cloud is to carry the answer up to, and not including, the position `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class CloudArrived:
    """A message of the cloud came: tokens at `position` and onward."""

    position: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class CloudFailed:
    """A stream of the cloud broke or was refused; `final` when no other one will be tried."""

    error: PdError
    final: bool


@dataclass(frozen=True, slots=True)
class DeviceBegan:
    """The device's turn at its engine came; `num_cached` tokens of the prompt it had already."""

    num_cached: int


@dataclass(frozen=True, slots=True)
class DevicePassed:
    """A pass of the device ended; with it `num_fed` tokens of prompt and answer are fed.

    Attributes:
        num_fed: all so far, those that were cached included.
        num_tokens: in this pass.
        seconds: this pass took.
    """

    num_fed: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """The device's engine failed; it takes no further part."""

    error: PdError


@dataclass(frozen=True, slots=True)
class Claimed:
    """The handoff: from `position` on only the device commits."""

    position: int


@dataclass(frozen=True, slots=True)
class ClaimReturned:
    """The device gave its claim back: the cloud may go on after all."""


Happening = (
    CloudAsked
    | CloudArrived
    | CloudFailed
    | DeviceBegan
    | DevicePassed
    | DeviceFailed
    | Claimed
    | ClaimReturned
)
"""One thing that happened."""

Tell = Callable[[Happening], None]
"""How the parts of a session tell of it; they are not held up by it."""


class Happened(NamedTuple):
    """What happened, and when: seconds from submit."""

    at_s: float
    what: Happening


def silent(_happening: Happening) -> None:
    """Tell nobody."""
