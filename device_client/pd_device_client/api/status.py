"""How a device stands: its model, its cloud, its settings, and what its answers came to."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from pd_device_client.api.places import Places
from pd_device_client.api.questions import AnswerSettings
from pd_device_client.api.totals import Totals
from pd_device_client.client import DeviceClient
from pd_device_client.device import Device
from pd_device_client.residency import Phase, Residency

__all__ = ["Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a device's state is read from.

    Attributes:
        residency: has the device, once it is loaded.
        settings: what holds where a request is silent.
        places: taken by answers.
        cloud_address: as the user gave it, or None.
        totals: of the answers.
    """

    residency: Residency
    settings: AnswerSettings
    places: Places
    cloud_address: str | None
    totals: Totals = field(default_factory=Totals)

    def report(self) -> dict[str, Any]:
        """Return the state as it is now; nobody is asked for it."""
        ready = self.residency.phase is Phase.READY
        device = self.residency.device if ready else None
        return {
            "version": version("pd-device"),
            "state": self.residency.phase.value,
            "model": None if device is None else _model(device),
            "cloud": self._cloud(None if device is None else device.client),
            "settings": {
                "mode": self.settings.mode.value,
                "max_tokens": self.settings.max_tokens,
                "pace_s": None if device is None else device.client.promise.pace_s,
                "ttft_s": None if device is None else device.client.promise.ttft_s,
            },
            "answers_running": self.places.taken,
            "totals": self.totals.report(),
        }

    def _cloud(self, client: DeviceClient | None) -> dict[str, Any]:
        """Say what is known of the cloud, which is what the last call to it said."""
        state, detail, model = "none", None, None
        if self.cloud_address is not None:
            state = "unknown"
        if client is not None and client.info is not None:
            state, model = "connected", client.info.model_name
            if client.handshake.mismatch:
                state, detail = "mismatch", client.handshake.mismatch
        elif client is not None and client.cloud_error is not None:
            state, detail = "unreachable", str(client.cloud_error)
        return {
            "address": self.cloud_address,
            "state": state,
            "detail": detail,
            "model": model,
            "exactness": client.handshake.exactness if state == "connected" and client else None,
        }


def _model(device: Device) -> dict[str, Any]:
    profile, turns = device.client.device_profile, device.client.turns
    return {
        "name": device.loaded.name,
        "engine": device.client.engine_name,
        "chat": device.loaded.chat_template is not None,
        "context_tokens": device.loaded.model.config.max_context_tokens,
        "prefill_tokens_per_s": 1 / profile.prefill_b_s if profile.prefill_b_s > 0 else None,
        "decode_tokens_per_s": 1 / profile.decode_s if profile.decode_s > 0 else None,
        "running": turns.num_running,
        "waiting": turns.num_waiting,
    }
