"""What the reader of one answer has seen, and from when its times count."""

from dataclasses import dataclass, field

from pd_device_client.contract.outcome import Shown

__all__ = ["Seen"]


@dataclass(slots=True)
class Seen:
    """Filled by the answer's reader alone; the judgement behind a handoff only looks at it.

    Attributes:
        shown: everything shown, in order of position.
        arrived_at_s: seconds from submit to each position's commit, shown or not.
        submitted_s: the instant from which the answer's times count.
        last_s: d(n), the instant from which the next gap counts: the last token's.
    """

    shown: list[Shown] = field(default_factory=list)
    arrived_at_s: list[float] = field(default_factory=list)
    submitted_s: float = 0.0
    last_s: float = 0.0
