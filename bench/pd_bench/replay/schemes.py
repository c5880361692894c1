"""Schemes: what a comparison compares, by name, and the client that carries each.

- `device-only`: the device answers alone; it has no link.
- `cloud-only`: the cloud answers; the device has no engine and only paces.
- `pd-device`: the product: the planner's k, adapted while the answer runs.
- `pd-device-kN`: the same session with a fixed k of N tokens for every request: the cloud makes
  N tokens of each answer (or all of a shorter one), never fewer and never more, however the
  forecast changes. As in pd-device, a side that fails or falls silent is replaced, and a device
  that is ahead of the cloud's first token goes on alone.
- `race-only`: both sides start; the one that shows the first token carries the whole answer, the
  other is cancelled. Nothing is handed over, nothing is taken over after the first token, and
  tokens are shown as they come, without a pace (`pd_bench.replay.race`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from pd_bench.replay.dispatch import Client, DispatchedSession
from pd_bench.replay.race import RaceClient
from pd_core.errors import ConfigError
from pd_core.settings.option import Option
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.planning.profiles import SpeedProfile

__all__ = ["SCHEMES", "Scheme", "SchemesOption", "parse_scheme", "parse_schemes", "scheme_client"]

SCHEMES = ("device-only", "cloud-only", "pd-device")
"""Compared when none is named; also the modes of a device client."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


SchemesOption = Annotated[
    tuple[str, ...],
    Option(
        "Which, comma-separated; also pd-device-kN, race-only.",
        "schemes",
        read=_names,
        written=",".join,
    ),
]

_RACE = "race-only"
_FIXED_K = re.compile(r"pd-device-k([1-9][0-9]{0,5})")
_KNOWN = f"{', '.join(SCHEMES)}, pd-device-kN (N cloud tokens, as in pd-device-k14), {_RACE}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to carry requests.

    Attributes:
        name: in tables and documents.
        mode: of the device client; of a race, the name itself.
        cloud_tokens: the fixed k; None: the planner's.
    """

    name: str
    mode: str
    cloud_tokens: int | None = None

    @property
    def race(self) -> bool:
        """Whether both sides race for the whole answer."""
        return self.mode == _RACE

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
        """What a reader of a result must know of a baseline."""
        if self.race:
            return (
                f"{self.name}: whoever shows the first token carries the whole answer; shown as "
                "it comes, without a pace, so its gaps are the engine's own",
            )
        if self.cloud_tokens is not None:
            return (f"{self.name}: k is {self.cloud_tokens} for every request, never adapted",)
        return ()


def parse_scheme(name: str) -> Scheme:
    """Return the scheme of that name.

    Raises:
        ConfigError: there is none; the message lists the known ones.
    """
    if name in SCHEMES or name == _RACE:
        return Scheme(name, name)
    match = _FIXED_K.fullmatch(name)
    if match is None:
        raise ConfigError(f"unknown scheme {name!r}; known: {_KNOWN}")
    return Scheme(name, "pd-device", int(match[1]))


def parse_schemes(names: tuple[str, ...]) -> tuple[Scheme, ...]:
    """Return the schemes of these names, in order.

    Raises:
        ConfigError: none is named, one is named twice, or one is unknown.
    """
    if not names:
        raise ConfigError(f"no scheme is named; known schemes: {_KNOWN}")
    if len(set(names)) < len(names):
        raise ConfigError(f"a scheme is named twice in {','.join(names)}")
    return tuple(parse_scheme(name) for name in names)


def scheme_client(
    scheme: Scheme,
    *,
    link: Callable[[], CloudLink],
    engine: Callable[[], LocalEngine],
    pace_s: float,
    device_profile: SpeedProfile | None = None,
) -> Client:
    """Return a client that carries every request in this scheme.

    Neither side can help the other beyond the scheme: device-only has no link, cloud-only no
    engine.

    Args:
        scheme: how.
        link: makes the way to the cloud; called when the scheme uses it.
        engine: makes the local engine; called when the scheme uses it.
        pace_s: the pace; a race has none.
        device_profile: the device's speeds; measured at start when None.
    """
    if scheme.race:
        return RaceClient(
            DeviceClient(cloud=link(), engine=None, pace_s=0.0),
            DeviceClient(cloud=None, engine=engine(), pace_s=0.0, device_profile=device_profile),
        )
    client = DeviceClient(
        cloud=link() if scheme.uses_cloud else None,
        engine=engine() if scheme.uses_device else None,
        pace_s=pace_s,
        device_profile=device_profile,
    )
    return _SchemeClient(client, scheme)


class _SchemeClient:
    """A device client that is asked for one scheme only."""

    def __init__(self, client: DeviceClient, scheme: Scheme) -> None:
        self._client = client
        self._scheme = scheme

    async def start(self) -> None:
        await self._client.start()

    async def close(self) -> None:
        await self._client.close()

    def session(self, request: Ask, mode: str) -> DispatchedSession:
        assert mode == self._scheme.name, f"a client of {self._scheme.name} was asked for {mode}"
        asked_as = Mode.parse(self._scheme.mode)
        return self._client.session(
            replace(request, mode=asked_as, cloud_tokens=self._scheme.cloud_tokens)
        )
