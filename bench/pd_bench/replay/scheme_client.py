"""The client that answers requests by a scheme."""

from collections.abc import Callable
from dataclasses import replace

from pd_bench.replay.dispatch import Client, DispatchedSession
from pd_bench.replay.race import RaceClient
from pd_bench.replay.schemes import Scheme
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.planning.answer_lengths import AnswerLengths
from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["scheme_client"]


def scheme_client(
    scheme: Scheme,
    *,
    link: Callable[[], CloudLink],
    engine: Callable[[], LocalEngine],
    pace_s: float,
    device_profile: SpeedProfile | None = None,
    lengths: AnswerLengths | None = None,
    promise: Promise | None = None,
) -> Client:
    """Return a client that answers every request by this scheme.

    A side that the scheme excludes cannot help: device-only has no link, cloud-only no engine.

    Args:
        scheme: the scheme.
        link: makes the cloud link; called when the scheme uses it.
        engine: makes the local engine; called when the scheme uses it.
        pace_s: the pace; a race has none.
        device_profile: the device's speeds; measured at start when None.
        lengths: of past answers; None: there are none yet.
        promise: what the planner is to keep; None: the pace.
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
        lengths=lengths,
        promise=replace(promise or Promise(pace_s), quality_floor=scheme.quality_floor),
    )
    return _SchemeClient(client, scheme)


class _SchemeClient:
    """A device client for one scheme."""

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
