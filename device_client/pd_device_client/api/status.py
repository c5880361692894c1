"""A device's state: its model, its cloud, its settings, and the totals of its answers."""

import asyncio
from importlib.metadata import version
from typing import Any

from pd_device_client.api.capabilities import capabilities
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.client.client import DeviceClient
from pd_device_client.client.cloud_watch import CloudWatch
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.device.device import Device
from pd_device_client.device.prompt import knows_roles
from pd_device_client.device.residency import Phase, Residency
from pd_device_client.device.totals import Totals
from pd_device_client.planning.speeds.estimates import CloudEstimate

__all__ = ["Status"]


class Status:
    """Reports a device's state, and whether it is in use.

    Args:
        settings: the defaults for requests.
        places: taken by answers.
        cloud: the current cloud and how to choose another; None: there is no cloud.

    Attributes:
        settings, places, cloud: as given.
        totals: sums over the answers.
        capabilities: what the model can be asked for; none before it is loaded.
    """

    def __init__(
        self, settings: AnswerSettings, places: Places, cloud: CloudChoice | None = None
    ) -> None:
        self.settings = settings
        self.places = places
        self.cloud = cloud or CloudChoice(None, lambda target: None)
        self._model: dict[str, Any] | None = None  # kept while the device is asleep
        self._chat = False
        self.capabilities: list[str] = []
        self._promise: dict[str, float | None] = dict.fromkeys(("pace_s", "ttft_s", "reading_wpm"))
        self.totals = Totals()

    @property
    def busy(self) -> bool:
        """Whether an answer is in progress or in preparation."""
        return self.places.busy

    async def loaded(self, device: Device) -> None:
        """Store what `report` says while the device is asleep, but no reference to it."""
        promise = device.client.promise
        self._chat = await asyncio.to_thread(knows_roles, device.loaded)
        self._model = _model(device, self._chat)
        self.capabilities = capabilities(device, self.settings, chat=self._chat)
        self._promise = {
            "pace_s": promise.pace_s,
            "ttft_s": promise.ttft_s,
            "reading_wpm": promise.reading_wpm,
        }

    def report(self, residency: Residency) -> dict[str, Any]:
        """Return the current state, without asking the cloud."""
        phase, client = residency.phase, None
        if phase is Phase.READY:
            device = residency.device
            client = device.client
            self._model = _model(device, self._chat)
        elif self._model is not None:
            self._model |= {"running": 0, "waiting": 0}
        return {
            "version": version("pd-device"),
            "state": phase.value,
            "serving": phase.serving,
            "model": self._model,
            "cloud": self._cloud_report(client),
            "settings": {
                "mode": self.settings.mode.value,
                "max_tokens": self.settings.max_tokens,
                **self._promise,
            },
            "answers_running": self.places.taken,
            "totals": self.totals.report(),
        }

    def _cloud_report(self, client: DeviceClient | None) -> dict[str, Any]:
        """Return the cloud's state as of the last call to it."""
        state, detail, info = "none", None, None
        if self.cloud.target is not None:
            state = "unknown"
            if client is not None:
                state, detail = _cloud_state(client.cloud)
                info = client.cloud.info
        connected = client is not None and state == "connected"
        return {
            "address": self.cloud.target,
            "settable": self.cloud.settable,
            "state": state,
            "detail": detail,
            "model": None if info is None else info.model.name,
            "exactness": client.cloud.handshake.exactness if client and connected else None,
            "link": _link(client.cloud.estimate) if client and connected else None,
        }


def _link(estimate: CloudEstimate) -> dict[str, float | None]:
    return {
        "rtt_s": estimate.rtt_s,
        "jitter_s": estimate.jitter_s,
        "upload_bytes_per_s": estimate.upload_bytes_per_s,
    }


def _cloud_state(cloud: CloudWatch) -> tuple[str, str | None]:
    if cloud.info is None:
        return "unreachable", None if cloud.error is None else str(cloud.error)
    if cloud.handshake.mismatch:
        return "mismatch", cloud.handshake.mismatch
    if cloud.left_alone:
        return "resting", "it failed several times in a row and is asked now and then"
    return "connected", None


def _model(device: Device, chat: bool) -> dict[str, Any]:
    profile, turns = device.client.device_profile, device.client.turns
    return {
        "name": device.loaded.name,
        "engine": device.client.engine_name,
        "chat": chat,
        "context_tokens": device.loaded.max_context_tokens,
        "prefill_tokens_per_s": 1 / profile.prefill_b_s if profile.prefill_b_s > 0 else None,
        "decode_tokens_per_s": 1 / profile.decode_s if profile.decode_s > 0 else None,
        "chunk_tokens": device.client.device_estimate.chunk_tokens,
        "gives_way_to": None if device.manners is None else device.manners.gives_way.value,
        "running": turns.num_running,
        "waiting": turns.num_waiting,
    }
