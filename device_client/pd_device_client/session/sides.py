"""What a session works with: the link, the local engine, and what is known of both."""

from dataclasses import dataclass, field

from pd_core.generation import Fingerprints
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.planning.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.session.engine_turns import EngineTurns

__all__ = ["CloudTimeouts", "Sides"]


@dataclass(frozen=True, slots=True)
class CloudTimeouts:
    """How long to wait for the cloud, by phase, before a stream is taken for dead.

    Attributes:
        admitted_s: for the answer to Start.
        first_token_s: from then to the first token; a queue and a long prefill lie in it.
        idle_s: between two messages.
        finish_s: for Finished after Stop, beside the reader, never before them.
    """

    admitted_s: float = 5.0
    first_token_s: float = 60.0
    idle_s: float = 10.0
    finish_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Sides:
    """What a session works with; the estimates are shared by a client's requests and learn.

    Attributes:
        link: the way to the cloud, or None when the request must not or cannot use it.
        engine: the local engine, or None.
        cloud_estimate: the cloud's speed.
        device_estimate: the device's speed.
        fingerprints: this side's, checked by the cloud.
        eos_token_ids: ids that end an answer.
        exactness: "identical" when both sides have equal numerics, else "consistent".
        timeouts: of the cloud's streams.
        turns: at the local engine.
    """

    link: CloudLink | None
    engine: LocalEngine | None
    cloud_estimate: CloudEstimate
    device_estimate: DeviceEstimate
    fingerprints: Fingerprints
    eos_token_ids: tuple[int, ...]
    exactness: str = "identical"
    timeouts: CloudTimeouts = field(default_factory=CloudTimeouts)
    turns: EngineTurns = field(default_factory=lambda: EngineTurns(1))
