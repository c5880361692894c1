"""What the reader is told of who makes an answer, kept true token by token.

The plan is the first thing told. A committed token that it does not foretell revises it at that
very moment, so at every position the last thing told names the side that made it.
"""

from pd_core.errors import CloudBudgetSpent
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.happenings import Replanned, Tell
from pd_device_client.contract.outcome import Origin
from pd_device_client.session.cloud_leg import CloudLeg

__all__ = ["Course"]

_BACK = "the cloud is back and makes"


class Course:
    """The last thing told.

    Args:
        mode: the plan's.
        cloud_tokens: the plan's.
        cloud: the cloud's leg, or None.
        tell: receives each revision.
        takes_turns: the plan says that both sides take turns after the cloud's first tokens.

    Attributes:
        words: the last revision; "" while the plan holds.
    """

    def __init__(
        self,
        mode: Mode,
        cloud_tokens: int,
        cloud: CloudLeg | None,
        tell: Tell,
        *,
        takes_turns: bool = False,
    ) -> None:
        self._mode = mode
        self._cloud_tokens = cloud_tokens
        self._cloud = cloud
        self._tell = tell
        self._cloud_why = ""
        self._turns_from = cloud_tokens if takes_turns else None
        self.words = ""

    def leaves_to_cloud(self, why: str) -> None:
        """The cloud is to make the rest, once it can: this is why."""
        self._cloud_why = why

    def cloud_alone(self, position: int) -> None:
        """The device has stopped; the cloud makes `position` and all after it."""
        if self._mode is not Mode.CLOUD_ONLY:
            why = f"{self._cloud_why}: the cloud makes" if self._cloud_why else _BACK
            self._cloud_why = ""
            self._say(Mode.CLOUD_ONLY, position, f"{why} {_rest(position)}")

    def committed(self, position: int, origin: Origin, *, shared: bool) -> None:
        """A token was committed.

        Args:
            position: its position.
            origin: the side that made it.
            shared: whether the device is to go on after the cloud, as in pd-device.
        """
        if origin is self._maker(position) or (shared and self._in_turns(position)):
            return
        if origin is Origin.DEVICE:
            words = f"this device makes {_rest(position)}"
            cause = self._trouble(shared=shared)
            self._say(Mode.DEVICE_ONLY, position, f"{cause}: {words}" if cause else words)
        elif shared and self._cloud is not None:
            before, until = self._mode, max(self._cloud.limit, position + 1)
            self._cloud_tokens = until
            words = f"the cloud goes on, up to token {until}"
            if before is Mode.PD_DEVICE:
                words = f"this device needs longer: {words}"
            self._say(Mode.PD_DEVICE, position, words)
        else:
            self.cloud_alone(position)

    def _in_turns(self, position: int) -> bool:
        """Whether the plan still holds, by which either side may make this position."""
        if self._turns_from is None or position < self._turns_from or self.words:
            return False
        return self._cloud is not None and not self._cloud.broken

    def _maker(self, position: int) -> Origin:
        if self._mode is Mode.PD_DEVICE:
            return Origin.CLOUD if position < self._cloud_tokens else Origin.DEVICE
        return Origin.CLOUD if self._mode is Mode.CLOUD_ONLY else Origin.DEVICE

    def _trouble(self, *, shared: bool) -> str:
        """What is wrong with the cloud; "" when nothing is, as at a handoff."""
        if self._cloud is not None and isinstance(self._cloud.error, CloudBudgetSpent):
            return "the cloud may make no more"
        if self._cloud is None or self._cloud.broken:
            return "the cloud failed"
        return "the cloud is late" if self._cloud.late or not shared else ""

    def _say(self, mode: Mode, position: int, words: str) -> None:
        self._mode, self.words = mode, words
        self._tell(Replanned(mode, position, self._cloud_tokens, words))


def _rest(position: int) -> str:
    return f"the rest, from token {position + 1:,}" if position else "the answer"
