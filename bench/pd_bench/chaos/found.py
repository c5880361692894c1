"""What a campaign of faults found."""

from collections import Counter
from dataclasses import dataclass, field

from pd_bench.chaos.verdict import Verdict

__all__ = ["BAD", "ChaosFound"]

BAD = (Verdict.LOST, Verdict.DOUBLED, Verdict.WRONG, Verdict.UNANSWERED)
_MOST_NAMED = 20


@dataclass(slots=True)
class ChaosFound:
    """The campaign's figures.

    Attributes:
        requests: how many were disturbed.
        verdicts: how many ended how.
        faults: how often each kind of fault was in force.
        errors: how often each typed error ended an answer.
        leaked: slots, tasks, streams and connections that were left at the end.
        named: requests that ended badly, and how; the first ones.
        handoffs: answers that were handed over.
    """

    requests: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    leaked: int = 0
    named: list[str] = field(default_factory=list)
    handoffs: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing that must not be was found."""
        return self.leaked == 0 and not any(self.verdicts[verdict] for verdict in BAD)

    def add(self, number: int, verdict: Verdict, told: str) -> None:
        """Count an answer; `told` says of a bad one what happened."""
        self.requests += 1
        self.verdicts[verdict] += 1
        if verdict in BAD:
            self.name(f"request {number}: {verdict}: {told}")

    def leak(self, count: int, told: str) -> None:
        """Count what was left."""
        self.leaked += count
        if count:
            self.name(f"leaked: {told}")

    def name(self, words: str) -> None:
        """Keep a finding in words."""
        if len(self.named) < _MOST_NAMED:
            self.named.append(words)

    def document(self) -> dict[str, object]:
        """Return the figures."""
        return {
            "requests": self.requests,
            **{verdict.value: self.verdicts[verdict] for verdict in Verdict},
            "leaked": self.leaked,
            "handoffs": self.handoffs,
            "faults": dict(sorted(self.faults.items())),
            "errors": dict(sorted(self.errors.items())),
            "named": self.named,
        }
