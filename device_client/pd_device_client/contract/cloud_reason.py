"""Why the cloud took part in an answer, or why it did not."""

from enum import StrEnum

__all__ = ["CloudReason"]


class CloudReason(StrEnum):
    """The reason; `words` says it to a user."""

    PLANNED = "planned"
    NEEDED = "needed"
    PRIVACY = "privacy"
    MODE = "mode"
    NO_CLOUD = "no-cloud"
    UNREACHABLE = "unreachable"
    BREAKER = "breaker"
    MISMATCH = "mismatch"
    NO_ROOM = "no-room"
    UNABLE = "unable"
    CAP = "cap"
    PLAN = "plan"
    FAILED = "failed"

    @property
    def words(self) -> str:
        """It in words."""
        return _WORDS[self]


_WORDS = {
    CloudReason.PLANNED: "the plan gives the cloud a part of the answer",
    CloudReason.NEEDED: "this device could not go on alone as planned",
    CloudReason.PRIVACY: "the request is kept on this device",
    CloudReason.MODE: "the mode is device-only",
    CloudReason.NO_CLOUD: "there is no cloud",
    CloudReason.UNREACHABLE: "the cloud cannot be reached",
    CloudReason.BREAKER: "the cloud failed several times in a row and is left alone for a while",
    CloudReason.MISMATCH: "the cloud runs another model",
    CloudReason.NO_ROOM: "the request does not fit into the cloud's context",
    CloudReason.UNABLE: "the cloud cannot be asked for what the request needs",
    CloudReason.CAP: "a cap on the cloud's tokens or cost is reached",
    CloudReason.PLAN: "the plan needs no cloud: this device is fast enough",
    CloudReason.FAILED: "the cloud failed",
}
