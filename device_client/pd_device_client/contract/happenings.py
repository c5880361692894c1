"""Events of a session, beside the tokens that it shows.

A session works the same whether it is watched or not. There is one event for each message of the
cloud and for each pass of the device, so prompt and answer bound their number.
"""

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pd_core.errors import PdError
from pd_device_client.contract.ask import Mode

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
    "PromptRefined",
    "Replanned",
    "Tell",
    "Trace",
    "silent",
]


@dataclass(frozen=True, slots=True)
class CloudAsked:
    """The cloud was asked for all positions below `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class CloudArrived:
    """The cloud sent tokens, the first of them at `position`."""

    position: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class CloudFailed:
    """A cloud stream broke or was refused; `final` when no new one will be tried."""

    error: PdError
    final: bool


@dataclass(frozen=True, slots=True)
class DeviceBegan:
    """The device got its turn at the engine; `num_cached` tokens of the prompt were cached."""

    num_cached: int


@dataclass(frozen=True, slots=True)
class DevicePassed:
    """The device finished a pass.

    Attributes:
        num_fed: tokens of prompt and answer fed so far, cached ones included.
        num_tokens: tokens of this pass.
        seconds: duration of this pass.
    """

    num_fed: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PromptRefined:
    """The device leaves out tokens of the prompt that, as the cloud's scores say, matter least."""

    num_left_out: int


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """The device's engine failed; it takes no further part."""

    error: PdError


@dataclass(frozen=True, slots=True)
class Claimed:
    """The handoff: from `position` on, only the device commits."""

    position: int


@dataclass(frozen=True, slots=True)
class ClaimReturned:
    """The device gave its claim back, so the cloud may continue."""


@dataclass(frozen=True, slots=True)
class Replanned:
    """What was told of the answer's makers no longer holds; from here on this does.

    Attributes:
        mode: who makes the rest, as a plan's mode: the cloud, the device, or first the one.
        position: the first position of the rest.
        cloud_tokens: in pd-device, the cloud makes the positions below this one.
        why: all of it in words for the user, and the cause.
    """

    mode: Mode
    position: int
    cloud_tokens: int
    why: str


Happening = (
    CloudAsked
    | CloudArrived
    | CloudFailed
    | DeviceBegan
    | DevicePassed
    | PromptRefined
    | DeviceFailed
    | Claimed
    | ClaimReturned
    | Replanned
)
"""One thing that happened."""

Tell = Callable[[Happening], None]
"""Reports one; it never blocks."""


class Happened(NamedTuple):
    """An event and its time, in seconds from submit."""

    at_s: float
    what: Happening


class Trace(Protocol):
    """Follows an answer; it never blocks."""

    @property
    def context(self) -> Context:
        """What the answer's tasks run in, so that its cloud streams belong to it."""
        ...

    def happened(self, what: Happening) -> None:
        """Take an event, now."""
        ...


def silent(_happening: Happening) -> None:
    """Report nothing."""
