"""One request from the reader's side: what was shown, when, and which side made it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pd_core.errors import PdError
from pd_core.generation import FinishReason, TokenLogprobs
from pd_device_client.contract.cloud_reason import CloudReason
from pd_device_client.contract.privacy import FREE, Privacy

__all__ = ["MadeBy", "Origin", "Outcome", "Shown"]


class Origin(StrEnum):
    """The side whose token was committed."""

    CLOUD = "cloud"
    DEVICE = "device"


class Shown(NamedTuple):  # one is made for every token: a third of a frozen dataclass's time
    """One token shown to the reader.

    Attributes:
        position: response position.
        token_id: the token.
        text: the text it adds; may be "" (an end-of-sequence token, half a character).
        origin: the side that made it.
        at_s: seconds from submit to showing.
        logprobs: how likely it was, by the side that made it, where the request asks.
    """

    position: int
    token_id: int
    text: str
    origin: Origin
    at_s: float
    logprobs: TokenLogprobs | None = None


class MadeBy(NamedTuple):
    """Shown positions that follow each other and that one side made.

    Attributes:
        origin: the side.
        first: the first position.
        until: the first one that is not of them any more.
    """

    origin: Origin
    first: int
    until: int


@dataclass(slots=True)
class Outcome:
    """The result of a request. The session fills it; every figure derives from raw timestamps.

    Attributes:
        request_id: as in the ask.
        mode: the planned mode, "device-only", "cloud-only" or "pd-device".
        planned_tokens: the plan's cloud token budget k.
        pace_s: the controller's target gap.
        shown: everything shown, in order of position.
        arrived_at_s: seconds from submit to each position's commit, shown or not.
        finish_reason: why it ended; None while it goes on.
        stop_string: the stop string that ended it; None when something else did.
        handoff_position: first position committed by the device after cloud tokens; None without
            a handoff.
        cloud_tokens: committed tokens that the cloud made.
        cloud_tokens_generated: all tokens the cloud made, unused ones included.
        device_tokens_generated: all tokens the device made, unused ones included.
        disagreed: dropped tokens that differ from the committed ones.
        device_cached_tokens: prompt tokens that the device had cached from earlier answers.
        cloud_cached_tokens: prompt tokens that the cloud had cached from earlier requests.
        cloud_ttft_s: seconds from submit to the first cloud token's arrival; None without one.
        left_out_tokens: prompt tokens that the device did not read, as a refined prompt said.
        exactness: "identical" when both sides have equal numerics (or only one took part and
            nothing can differ), else "consistent"; "text" with a cloud that gives text, whose
            tokens are this device's reading of it; "refined" when the device made tokens without
            having read the whole prompt: then the text also depends on what it left out.
        privacy: the judgement on the request's words.
        sent_to_cloud: whether the prompt was sent to the cloud, in full.
        cloud_reason: why the cloud took part, or why not.
        cloud_cost: money for what the cloud was asked, at the prices given; None: there are none.
        cloud_error: why the cloud failed during the answer, or None.
        error: why the answer is incomplete, or None.
        notes: problems that the session worked around, in words for the user.
    """

    request_id: str
    mode: str
    planned_tokens: int
    pace_s: float
    shown: list[Shown] = field(default_factory=list)
    arrived_at_s: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_string: str | None = None
    handoff_position: int | None = None
    cloud_tokens: int = 0
    cloud_tokens_generated: int = 0
    device_tokens_generated: int = 0
    disagreed: int = 0
    device_cached_tokens: int = 0
    cloud_cached_tokens: int = 0
    left_out_tokens: int = 0
    cloud_ttft_s: float | None = None
    exactness: str = "identical"
    privacy: Privacy = FREE
    sent_to_cloud: bool = False
    cloud_reason: CloudReason = CloudReason.NO_CLOUD
    cloud_cost: float | None = None
    cloud_error: PdError | None = None
    error: PdError | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        """The token ids shown."""
        return [s.token_id for s in self.shown]

    @property
    def text(self) -> str:
        """The text shown."""
        return "".join(s.text for s in self.shown)

    @property
    def device_tokens(self) -> int:
        """Tokens shown that the device made."""
        return sum(s.origin is Origin.DEVICE for s in self.shown)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that a side had cached; of both sides the one that had more."""
        return max(self.device_cached_tokens, self.cloud_cached_tokens)

    @property
    def made_by(self) -> list[MadeBy]:
        """Which side made which of the shown positions, in their order."""
        shown = self.shown
        first_s = [
            i for i, one in enumerate(shown) if i == 0 or one.origin is not shown[i - 1].origin
        ]
        ends = [*first_s[1:], len(shown)]
        return [MadeBy(shown[i].origin, i, end) for i, end in zip(first_s, ends, strict=False)]

    @property
    def unused_tokens(self) -> int:
        """Tokens that either side made and nobody was shown."""
        made = self.cloud_tokens_generated + self.device_tokens_generated
        return max(made - len(self.shown), 0)

    @property
    def ttft_s(self) -> float | None:
        """Seconds from submit to the first token shown; None when nothing was shown."""
        return self.shown[0].at_s if self.shown else None

    @property
    def e2e_s(self) -> float | None:
        """Seconds from submit to the last token shown; None when nothing was shown."""
        return self.shown[-1].at_s if self.shown else None

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between consecutive shown tokens."""
        return [b.at_s - a.at_s for a, b in zip(self.shown, self.shown[1:], strict=False)]

    @property
    def largest_gap_s(self) -> float | None:
        """The largest gap; None for fewer than two tokens."""
        return max(self.gaps_s, default=None)

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per output token after the first; None for fewer than two tokens."""
        n = len(self.shown)
        return (self.shown[-1].at_s - self.shown[0].at_s) / (n - 1) if n > 1 else None

    @property
    def handoff_gap_s(self) -> float | None:
        """The gap before the handoff position: the seam."""
        h = self.handoff_position
        if h is None or not 0 < h < len(self.shown):
            return None
        return self.shown[h].at_s - self.shown[h - 1].at_s
