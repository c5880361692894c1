"""The two sides of a session, cloud link and local engine, with their estimates."""

from dataclasses import dataclass, field

from pd_core.generation import Fingerprints
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.planning.cloud_allowance import CloudAllowance
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.session.engine_turns import EngineTurns

__all__ = ["CloudTimeouts", "Sides"]


@dataclass(frozen=True, slots=True)
class CloudTimeouts:
    """How long to wait for the cloud, by phase, before a stream is considered dead.

    Attributes:
        admitted_s: from Start to Admitted.
        first_token_s: from Admitted to the first token, over queue and prefill.
        idle_s: between two messages.
        finish_s: from Stop to Finished; the reader never waits for it.
    """

    admitted_s: float = 5.0
    first_token_s: float = 60.0
    idle_s: float = 10.0
    finish_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Sides:
    """What a session works with; a client's requests share the estimates and refine them.

    Attributes:
        link: the cloud link, or None when the request must not or cannot use it.
        engine: the local engine, or None.
        cloud_estimate: the cloud's speed.
        device_estimate: the device's speed.
        fingerprints: this side's, checked by the cloud.
        eos_token_ids: ids that end an answer.
        exactness: "identical" when both sides have equal numerics, else "consistent", or "text".
        timeouts: for the cloud's streams.
        turns: the queue for the local engine.
        allowance: what the cloud may make for this request; None: there is no cap.
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
    allowance: CloudAllowance | None = None
