"""The schemes that a comparison compares.

- `device-only`: the device answers alone; it has no link.
- `cloud-only`: the cloud answers; the device has no engine and only paces.
- `pd-device`: the product: the planner's k, adapted while the answer runs.
- `pd-device-kN`: the same session with a fixed k of N tokens for every request: the cloud makes
  exactly N tokens of each answer (or all of a shorter one), however the forecast changes. As in
  pd-device, a side that fails or falls silent is replaced, and a device that is ahead of the
  cloud's first token continues alone.
- `pd-device-rR`: pd-device where a device reads only the share R of a prompt, as in
  pd-device-r0.5, once the cloud has told it which part.
- `race-only`: both sides start; the one that shows the first token makes the whole answer, the
  other is cancelled. There is no handoff and no pace (`pd_bench.replay.race`).
- `planned`: every device does what a fleet's plan directs (`pd-bench fleet-plan`).
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pd_core.errors import ConfigError
from pd_core.settings.option import Option

__all__ = ["SCHEMES", "Scheme", "SchemesOption", "parse_scheme", "parse_schemes"]

SCHEMES = ("device-only", "cloud-only", "pd-device")
"""The default schemes; also the modes of a device client."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


SchemesOption = Annotated[
    tuple[str, ...],
    Option(
        "Comma-separated; also pd-device-kN, pd-device-rR, race-only.",
        "schemes",
        read=_names,
        written=",".join,
    ),
]

_RACE = "race-only"
_PLANNED = "planned"
_FIXED_K = re.compile(r"pd-device-k([1-9][0-9]{0,5})")
_KEPT = re.compile(r"pd-device-r(0\.[0-9]{1,3})")
_KNOWN = (
    f"{', '.join(SCHEMES)}, pd-device-kN (N cloud tokens, as in pd-device-k14), pd-device-rR (the "
    f"share R of a prompt, as in pd-device-r0.5), {_RACE}"
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to answer requests.

    Attributes:
        name: its name in tables and documents.
        mode: the device client's mode; for a race, the name itself.
        cloud_tokens: the fixed k; None: the planner's.
        quality_floor: the least share of a prompt that a device reads.
    """

    name: str
    mode: str
    cloud_tokens: int | None = None
    quality_floor: float = 1.0

    @property
    def race(self) -> bool:
        """Whether both sides race for the whole answer."""
        return self.mode == _RACE

    @property
    def planned(self) -> bool:
        """Whether a fleet's plan directs each request."""
        return self.name == _PLANNED

    @property
    def uses_cloud(self) -> bool:
        """Whether the cloud takes part."""
        return self.mode != "device-only"

    @property
    def uses_device(self) -> bool:
        """Whether the device's engine takes part."""
        return self.mode != "cloud-only"

    @property
    def labels(self) -> tuple[str, ...]:
        """A document's notes on a baseline."""
        if self.race:
            return (
                f"{self.name}: whoever shows the first token carries the whole answer; shown as "
                "it comes, without a pace, so its gaps are the engine's own",
            )
        if self.cloud_tokens is not None:
            return (f"{self.name}: k is {self.cloud_tokens} for every request, never adapted",)
        if self.quality_floor < 1.0:
            return (
                f"{self.name}: a device reads {self.quality_floor:.0%} of a prompt or more, so "
                "with a real model its texts are not exact",
            )
        return ()


def parse_scheme(name: str, *, planned: bool = False) -> Scheme:
    """Return the scheme called `name`, or raise ConfigError listing the known ones.

    Args:
        name: its name.
        planned: there is a fleet's plan, so that `planned` is one of them.
    """
    if name == _PLANNED and planned:
        return Scheme(name, "pd-device")
    if name == _PLANNED:
        raise ConfigError("scheme planned needs the plan of a fleet; give it by --fleet-plan")
    if name in SCHEMES or name == _RACE:
        return Scheme(name, name)
    kept, match = _KEPT.fullmatch(name), _FIXED_K.fullmatch(name)
    if kept is not None and float(kept[1]) > 0.0:
        return Scheme(name, "pd-device", quality_floor=float(kept[1]))
    if match is None:
        raise ConfigError(f"unknown scheme {name!r}; known: {_KNOWN}")
    return Scheme(name, "pd-device", int(match[1]))


def parse_schemes(names: tuple[str, ...], *, planned: bool = False) -> tuple[Scheme, ...]:
    """Return the schemes of these names, in order.

    Raises:
        ConfigError: there is none, one is named twice, or one is unknown.
    """
    if not names:
        raise ConfigError(f"no scheme is named; known schemes: {_KNOWN}")
    if len(set(names)) < len(names):
        raise ConfigError(f"a scheme is named twice in {','.join(names)}")
    return tuple(parse_scheme(name, planned=planned) for name in names)
