"""Whether the words of a request may leave this device, and why not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["FREE", "KeptBy", "Privacy"]


class KeptBy(StrEnum):
    """What keeps a request on this device."""

    SETTINGS = "settings"  # nothing of any request leaves it
    REQUEST = "request"  # the request says so
    CONVERSATION = "conversation"  # an earlier turn of it was kept here
    RULE = "rule"  # a rule of the settings
    NOT_TESTED = "not-tested"  # there are rules, and they were not asked


@dataclass(frozen=True, slots=True)
class Privacy:
    """The judgement on one request.

    Attributes:
        by: what keeps it here; None: its words may leave this device.
        rule: the rule's name, if one keeps it here, or kept an earlier turn of the conversation.
        problem: why the rule could not be tested, in words; "": it was.
    """

    by: KeptBy | None = None
    rule: str = ""
    problem: str = ""

    @property
    def local_only(self) -> bool:
        """Whether nothing of the request may leave this device."""
        return self.by is not None

    @property
    def words(self) -> str:
        """Why it is kept here, for the user; "" if it is not."""
        match self.by:
            case None:
                return ""
            case KeptBy.SETTINGS:
                return "kept on this device by the settings"
            case KeptBy.REQUEST:
                return "kept on this device, as the request says"
            case KeptBy.CONVERSATION:
                because = f' (by the rule "{self.rule}")' if self.rule else ""
                return f"kept on this device, as an earlier turn was{because}"
            case KeptBy.RULE if self.problem:
                return (
                    f'kept on this device: the rule "{self.rule}" could not be tested: '
                    f"{self.problem}"
                )
            case KeptBy.RULE:
                return f'kept on this device by the rule "{self.rule}"'
            case KeptBy.NOT_TESTED:
                return "kept on this device: it was not tested against the rules of the settings"

    def report(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "local_only": self.local_only,
            "by": None if self.by is None else self.by.value,
            "rule": self.rule or None,
            "words": self.words or None,
        }


FREE = Privacy()
"""Nothing keeps the words here."""
