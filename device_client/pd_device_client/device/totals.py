"""What the answers of a device came to since it was started."""

from dataclasses import asdict, dataclass

from pd_device_client.contract.outcome import Outcome

__all__ = ["Totals"]


@dataclass(slots=True)
class Totals:
    """Sums over all answers that have ended, those that were cancelled included.

    Attributes:
        answers: how many.
        handed_over: of them, begun by the cloud and gone on with by this device.
        shown_tokens: shown to readers; what a cloud alone would have had to make.
        cloud_tokens: made by the cloud, those that were never used included.
    """

    answers: int = 0
    handed_over: int = 0
    shown_tokens: int = 0
    cloud_tokens: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count an answer that has ended."""
        if not outcome.finish_reason:
            return  # it never began
        self.answers += 1
        self.handed_over += outcome.handoff_position is not None
        self.shown_tokens += len(outcome.shown)
        self.cloud_tokens += outcome.cloud_tokens_generated

    @property
    def cloud_tokens_saved(self) -> int:
        """Shown tokens that no cloud had to make."""
        return max(self.shown_tokens - self.cloud_tokens, 0)

    def report(self) -> dict[str, int]:
        """Return what is told of them."""
        return {**asdict(self), "cloud_tokens_saved": self.cloud_tokens_saved}
