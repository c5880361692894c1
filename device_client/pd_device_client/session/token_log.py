"""The token log: every response position is committed exactly once (DESIGN 2).

Before the claim the cloud's tokens are committed in order, or the device's while it is ahead of
the current stream. After the claim at position h only the device commits; cloud tokens at h and
beyond are set aside, and used only if the device gives the claim back (it failed, or would break
the promise) before committing those positions.

A cloud stream with a token that differs from a committed one has diverged: its later tokens
continue a different text, so none of them is committed. A new stream starts from the committed
prefix, so it agrees at first.

The log is plain state, owned by one event loop; it never waits.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

from pd_core.errors import ProtocolError
from pd_core.generation import FinishReason, TokenLogprobs
from pd_device_client.contract.happenings import Claimed, ClaimReturned, Tell, silent
from pd_device_client.contract.outcome import Origin

__all__ = ["TokenLog"]


class TokenLog:
    """Positions 0, 1, 2, ... of one response.

    Args:
        max_tokens: the log closes when it holds this many.
        end_token_ids: committing one of these closes the log: the model's end-of-sequence ids, and
            those at which the request stops.
        on_commit: called with (position, token_id) after each commit; may call `close`.
        tell: receives events of the claim.

    Attributes:
        token_ids: the committed tokens.
        origins: the side that made each.
        logprobs: how likely tokens were, by their positions; of all of them where the request asks.
        end_token_ids: as given.
        claimed_at: position from which only the device commits; None before the claim.
        closed: None while open, then why: STOP, LENGTH or the argument of `close`.
        disagreed: dropped cloud tokens that differ from the committed ones.
        stream_began: whether the current cloud stream has sent a token.
        diverged: whether the current cloud stream continues a different text.
    """

    __slots__ = (
        "_aside",
        "_max_tokens",
        "_on_commit",
        "_stream_next",
        "_tell",
        "claimed_at",
        "closed",
        "disagreed",
        "diverged",
        "end_token_ids",
        "logprobs",
        "origins",
        "stream_began",
        "token_ids",
    )

    def __init__(
        self,
        max_tokens: int,
        end_token_ids: Iterable[int] = (),
        on_commit: Callable[[int, int], None] | None = None,
        tell: Tell = silent,
    ) -> None:
        self._max_tokens = max_tokens
        self.end_token_ids = frozenset(end_token_ids)
        self._on_commit = on_commit
        self._tell = tell
        # Positions len(token_ids) .. of the current cloud stream.
        self._aside: list[tuple[int, TokenLogprobs | None]] = []
        self._stream_next = 0  # the next position that the current cloud stream will send
        self.token_ids: list[int] = []
        self.origins: list[Origin] = []
        self.logprobs: dict[int, TokenLogprobs] = {}
        self.claimed_at: int | None = None
        self.closed: FinishReason | None = None
        self.disagreed = 0
        self.stream_began = False
        self.diverged = False

    @property
    def length(self) -> int:
        """The next position to commit."""
        return len(self.token_ids)

    @property
    def handoff_position(self) -> int | None:
        """The first position that the device committed after a cloud token; None without one."""
        pairs = enumerate(itertools.pairwise(self.origins), start=1)
        return next((i for i, pair in pairs if pair == (Origin.CLOUD, Origin.DEVICE)), None)

    @property
    def stream_behind(self) -> int:
        """Committed positions that the current cloud stream will send before new ones."""
        return self.length - self._stream_next

    @property
    def open_to_device(self) -> bool:
        """Whether the device may commit the next position.

        True after the claim; before it, while the current stream has sent no token or has yet to
        reach the end of the log.
        """
        return self.claimed_at is not None or not self.stream_began or self.stream_behind > 0

    @property
    def holds_aside(self) -> bool:
        """Whether cloud tokens beyond the claim are set aside."""
        return bool(self._aside)

    def new_stream(self) -> None:
        """Begin a new cloud stream at the committed prefix; forget the old one."""
        self._aside.clear()
        self._stream_next = self.length
        self.stream_began = False
        self.diverged = False

    def receive(
        self,
        first_position: int,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> None:
        """Add tokens of the current cloud stream, from first_position on.

        Each is committed, set aside, or compared with the committed token and dropped; a position
        that the stream has sent before is ignored.

        Args:
            first_position: of the first token.
            token_ids: the tokens.
            logprobs: one for each, or none at all.

        Raises:
            ProtocolError: a position was left out; the stream can no longer be used.
        """
        for position, token_id in enumerate(token_ids, start=first_position):
            if self.closed:
                return
            if position > self._stream_next:
                raise ProtocolError(
                    f"the cloud sent position {position}, but {self._stream_next} is missing"
                )
            if position < self._stream_next:
                continue
            self._stream_next += 1
            self.stream_began = True
            if self.diverged:
                continue
            told = logprobs[position - first_position] if logprobs else None
            if position < len(self.token_ids):
                self._compare(token_id, self.token_ids[position])
            elif self.claimed_at is None:
                self._commit(token_id, Origin.CLOUD, told)
            else:
                self._aside.append((token_id, told))

    def claim(self) -> int:
        """Claim the next position, and all after it, for the device; return that position."""
        assert self.claimed_at is None, "claimed twice"
        assert not self.closed, "claimed after the end"
        self.claimed_at = self.length
        self._tell(Claimed(self.length))
        return self.length

    def commit_device(
        self, position: int, token_id: int, logprobs: TokenLogprobs | None = None
    ) -> None:
        """Commit the device's token at the next position, while the log is `open_to_device`."""
        assert position == len(self.token_ids), "the device commits the next position only"
        assert not self.closed, "committed after the end"
        assert self.open_to_device, "not claimed"
        if self._aside:
            self._compare(self._aside.pop(0)[0], token_id)
        self._commit(token_id, Origin.DEVICE, logprobs)

    def release_claim(self) -> None:
        """Give the claim back and commit the cloud tokens set aside."""
        if self.claimed_at is not None:
            self._tell(ClaimReturned())
        self.claimed_at = None
        aside, self._aside = self._aside, []
        for token_id, logprobs in aside:
            if self.closed or self.diverged:
                return
            self._commit(token_id, Origin.CLOUD, logprobs)

    def close(self, reason: FinishReason) -> None:
        """Close the log; only the first reason counts."""
        self.closed = self.closed or reason

    def _compare(self, cloud_token_id: int, committed_token_id: int) -> None:
        """Drop a cloud token for a committed position; a different token ends the stream's use."""
        if cloud_token_id != committed_token_id:
            self.disagreed += 1
            self.diverged = True
            self._aside.clear()

    def _commit(self, token_id: int, origin: Origin, logprobs: TokenLogprobs | None) -> None:
        position = len(self.token_ids)
        if logprobs is not None:
            self.logprobs[position] = logprobs
        self.token_ids.append(token_id)
        self.origins.append(origin)
        if self._on_commit is not None:
            self._on_commit(position, token_id)
        if token_id in self.end_token_ids:
            self.close(FinishReason.STOP)
        elif position + 1 >= self._max_tokens:
            self.close(FinishReason.LENGTH)
