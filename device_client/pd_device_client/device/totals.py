"""Totals over a device's answers since its start."""

from dataclasses import asdict, dataclass

from pd_device_client.contract.outcome import Outcome

__all__ = ["Totals"]


@dataclass(slots=True)
class Totals:
    """Sums over all answers that have ended, cancelled ones included.

    Attributes:
        answers: number of answers.
        handed_over: answers that the cloud began and this device continued.
        shown_tokens: tokens shown; a cloud alone would have made all of them.
        cloud_tokens: tokens the cloud made, unused ones included.
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
        """Shown tokens that the cloud did not have to make."""
        return max(self.shown_tokens - self.cloud_tokens, 0)

    def report(self) -> dict[str, int]:
        """Return the sums as a JSON object."""
        return {**asdict(self), "cloud_tokens_saved": self.cloud_tokens_saved}
