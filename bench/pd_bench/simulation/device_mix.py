"""Devices of several classes in one simulation, and what a plan directs each of them to do."""

import math
import random
from typing import Annotated, NamedTuple

from pydantic import Field

from pd_bench.replay.schemes import Scheme
from pd_bench.results.document_part import DocumentPart
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.profiles import LinkProfile, SpeedProfile

__all__ = ["DeviceMix", "Place", "PlannedClass", "PlannedGroup"]

_SEED = 1_000_003

Share = Annotated[float, Field(ge=0, le=1)]


class PlannedGroup(DocumentPart):
    """What a class does with prompts up to a length, that a shorter group does not cover.

    Attributes:
        longest_prompt: in tokens; None: any.
        share: of all arrivals.
        mode: which sides make the answer.
        cloud_tokens: k, of prompts of `whole_prompt` tokens, and in proportion of others.
        whole_prompt: see `cloud_tokens`.
        keep_ratio: rho.
        admitted: the share that the cloud may be asked for; the others' devices answer alone.
        kept: the share of the admitted whose promise is expected to be kept.
        cloud_s: seconds of a slot that each takes.
    """

    longest_prompt: int | None = Field(default=None, ge=0)
    share: Share
    mode: Mode
    cloud_tokens: int = Field(ge=0)
    whole_prompt: int = Field(ge=1)
    keep_ratio: float = Field(default=1.0, gt=0, le=1)
    admitted: Share = 1.0
    kept: Share
    cloud_s: float = Field(ge=0)


class PlannedClass(DocumentPart):
    """A class of devices, with a plan for each range of prompt lengths, the shortest first."""

    name: str
    share: float = Field(gt=0, le=1)
    device: SpeedProfile
    link: LinkProfile
    groups: tuple[PlannedGroup, ...] = Field(min_length=1)

    def group_of(self, prompt_tokens: int) -> PlannedGroup:
        """Return the plan of a prompt."""
        for group in self.groups[:-1]:
            if group.longest_prompt is not None and prompt_tokens <= group.longest_prompt:
                return group
        return self.groups[-1]


class Place(NamedTuple):
    """A row's device.

    Attributes:
        devices: its class.
        draw: a number in [0, 1) that decides whether the cloud may be asked.
    """

    devices: PlannedClass
    draw: float


class DeviceMix:
    """Devices in the shares of their classes.

    Args:
        classes: the classes; their shares add up to 1.
    """

    def __init__(self, classes: tuple[PlannedClass, ...]) -> None:
        self.classes = classes

    @property
    def words(self) -> str:
        """The classes and their shares."""
        return ", ".join(f"{c.share:.0%} {c.name}" for c in self.classes)

    @property
    def refines(self) -> bool:
        """Whether some devices are to read less than their whole prompts."""
        return any(group.keep_ratio < 1.0 for c in self.classes for group in c.groups)

    def place(self, line: int) -> Place:
        """Return the device of a row: always the same one for a line."""
        drawn = random.Random(_SEED * line)
        at, sum_of_shares = drawn.random(), 0.0
        for devices in self.classes:
            sum_of_shares += devices.share
            if at < sum_of_shares:
                return Place(devices, drawn.random())
        return Place(self.classes[-1], drawn.random())

    def scheme(self, scheme: Scheme, place: Place, prompt_tokens: int) -> Scheme:
        """Return how a device carries a request: as its group's plan says."""
        group = place.devices.group_of(prompt_tokens)
        if place.draw >= group.admitted:
            return Scheme(scheme.name, Mode.DEVICE_ONLY.value)
        if group.mode is not Mode.PD_DEVICE:
            return Scheme(scheme.name, group.mode.value)
        k = math.ceil(group.cloud_tokens * prompt_tokens / group.whole_prompt)
        return Scheme(scheme.name, group.mode.value, max(k, 1), group.keep_ratio)
