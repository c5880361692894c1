"""What the reader of one answer has seen."""

from dataclasses import dataclass, field

from pd_device_client.contract.outcome import Shown

__all__ = ["Seen"]


@dataclass(slots=True)
class Seen:
    """Written by the Reader only; the Handoff reads it.

    Attributes:
        shown: everything shown, in order of position.
        arrived_at_s: seconds from submit to each position's commit, shown or not.
        submitted_s: the instant from which the answer's times count.
        pace_s: the gap asked for now; a reading speed changes it with the text.
        last_s: d(n), the instant from which the next gap counts: the last token's.
    """

    shown: list[Shown] = field(default_factory=list)
    arrived_at_s: list[float] = field(default_factory=list)
    submitted_s: float = 0.0
    pace_s: float = 0.0
    last_s: float = 0.0
