"""The devices that a cloud serves: classes of equal devices, their share of the arrivals, lengths.

A fleet is written as TOML,

    lengths = "trace.csv"        # of all classes without their own; beside this file

    [[class]]
    name = "phones"
    share = 0.3
    device = "phone"             # or { prefill_b_s = 0.004, decode_s = 0.06, spread = 0.1 }
    link = "lte"

or, with the trace given apart, as "phone@lte=0.3,laptop@wifi=0.7".
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from pd_bench.results.document_part import DocumentPart
from pd_bench.traces.reader import read_trace
from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_device_client.planning.speeds.profiles import (
    LinkProfile,
    SpeedProfile,
    device_profile,
    link_profile,
)

__all__ = ["DeviceClass", "Lengths", "check_fleet", "lengths_of", "parse_classes", "read_fleet"]

_SUM_TOLERANCE = 1e-6
_DEFAULT_LINK = "wifi"

Lengths = tuple[tuple[int, int], ...]
"""Prompt and answer tokens of past requests."""


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices of one kind.

    Attributes:
        name: its name.
        share: of all arrivals.
        device: its speeds.
        link: its link to the cloud.
        lengths: prompt and answer tokens of past requests of its kind.
    """

    name: str
    share: float
    device: SpeedProfile
    link: LinkProfile
    lengths: Lengths


class _Speeds(DocumentPart):
    """A device's speeds in a fleet's file; see SpeedProfile."""

    prefill_b_s: float = Field(gt=0)
    decode_s: float = Field(gt=0)
    prefill_a_s: float = Field(default=0.0, ge=0)
    prefill_c_s: float = Field(default=0.0, ge=0)
    spread: float = Field(default=0.0, ge=0, le=1)


class _Link(DocumentPart):
    """A link in a fleet's file; see LinkProfile."""

    rtt_s: float = Field(ge=0)
    jitter_s: float = Field(default=0.0, ge=0)
    bytes_per_s: float | None = Field(default=None, gt=0)
    loss: float = Field(default=0.0, ge=0, lt=1)


class _Class(DocumentPart):
    name: Annotated[str, Field(min_length=1)]
    share: float = Field(gt=0, le=1)
    device: str | _Speeds
    link: str | _Link = _DEFAULT_LINK
    lengths: str | None = None


class _FleetFile(DocumentPart):
    lengths: str | None = None
    classes: tuple[_Class, ...] = Field(default=(), alias="class")


def read_fleet(path: Path) -> tuple[DeviceClass, ...]:
    """Return the classes of a fleet's file.

    Raises:
        ConfigError: it cannot be read or is no fleet; the message names the field.
        TraceError: a trace that it names cannot be read.
    """
    try:
        told = _FleetFile.model_validate(tomllib.loads(read_text_file(path)))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        told_of = error.errors(include_url=False, include_input=False)
        # What is no name may be a table of figures, of which the errors say more.
        first = next((e for e in told_of if e["loc"][-1:] != ("str",)), told_of[0])
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: not a fleet: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML document: {error}") from None
    read: dict[str, Lengths] = {}
    classes = []
    for c in told.classes:
        lengths = c.lengths or told.lengths
        if lengths is None:
            raise ConfigError(
                f'{path}: class {c.name!r} has no lengths; name a trace: lengths = "trace.csv"'
            )
        if lengths not in read:
            read[lengths] = lengths_of(path.parent / lengths)
        classes.append(
            DeviceClass(c.name, c.share, _device(c, path), _link(c, path), read[lengths])
        )
    return check_fleet(classes, str(path))


def parse_classes(text: str, lengths: Lengths) -> tuple[DeviceClass, ...]:
    """Return the classes of a text such as "phone@lte=0.3,laptop@wifi=0.7".

    Raises:
        ConfigError: it is not of this form, or a name is unknown.
    """
    classes = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, share = part.partition("=")
        device, _, link = (word.strip() for word in kind.partition("@"))
        try:
            value = float(share)
        except ValueError:
            raise ConfigError(
                f"--classes has {part!r}; write DEVICE@LINK=SHARE, such as phone@lte=0.3"
            ) from None
        profiles = device_profile(device), link_profile(link or _DEFAULT_LINK)
        classes.append(DeviceClass(kind.strip(), value, *profiles, lengths))
    return check_fleet(classes, "--classes")


def lengths_of(trace: Path) -> Lengths:
    """Return the lengths of a trace's requests; answers of no token are left out."""
    return tuple(
        (row.prompt_tokens, row.output_tokens)
        for row in read_trace(trace)
        if row.output_tokens > 0 and row.prompt_tokens > 0
    )


def check_fleet(classes: list[DeviceClass], where: str) -> tuple[DeviceClass, ...]:
    """Return the classes, if they are a fleet.

    Raises:
        ConfigError: there is none, two have one name, one is without requests, or the shares are
            no shares of one whole.
    """
    if not classes:
        raise ConfigError(f"{where}: the fleet is empty; it needs at least one class of devices")
    names = [c.name for c in classes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{where}: two classes are called {min(twice)!r}; name them apart")
    for c in classes:
        if not 0 < c.share <= 1:
            raise ConfigError(
                f"{where}: class {c.name!r} has a share of {c.share}; it must lie above 0 and be "
                "1 at most"
            )
        if not c.lengths:
            raise ConfigError(f"{where}: class {c.name!r} has no past request to learn from")
    total = math.fsum(c.share for c in classes)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ConfigError(f"{where}: the shares of the classes add up to {total:g} instead of 1")
    return tuple(classes)


def _device(told: _Class, path: Path) -> SpeedProfile:
    if isinstance(told.device, str):
        return device_profile(told.device)
    return SpeedProfile(told.name, f"given in {path.name}", **told.device.model_dump())


def _link(told: _Class, path: Path) -> LinkProfile:
    if isinstance(told.link, str):
        return link_profile(told.link)
    return LinkProfile(told.name, f"given in {path.name}", **told.link.model_dump())
