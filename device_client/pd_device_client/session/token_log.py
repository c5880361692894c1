"""The token log: every response position is committed exactly once (DESIGN 2).

Before the claim the cloud's tokens commit in order, or the device's, should it be ahead of the
present stream. After the claim at position h only the device commits; cloud
tokens at h and beyond are held aside, to be used only if the claim is given back (the device
failed, or would break its promise) before it has committed them.

A cloud stream whose token differs from a committed one has diverged: its later tokens continue
another text, so none of them is ever committed. A new stream starts from the committed prefix
and so begins in agreement.

The log is plain state, owned by one event loop; it never waits.
"""

import itertools
from collections.abc import Callable, Sequence

from pd_core.errors import ProtocolError
from pd_device_client.contract.happenings import Claimed, ClaimReturned, Tell, silent
from pd_device_client.contract.outcome import Origin

__all__ = ["TokenLog"]


class TokenLog:
    """Positions 0, 1, 2, ... of one response.

    Args:
        max_tokens: the log closes when it holds this many.
        eos_token_ids: a committed one of these closes the log.
        on_commit: called with (position, token_id) after each commit; may call `close`.
        tell: told of claims.

    Attributes:
        token_ids: the committed tokens.
        origins: who made each.
        eos_token_ids: as given.
        claimed_at: position from which only the device commits; None before the claim.
        closed: "" while open, then the finish reason: "stop", "length" or what `close` was given.
        disagreed: dropped cloud tokens that differ from the committed ones.
        stream_began: whether the present cloud stream has sent a token.
        diverged: whether the present cloud stream continues another text.
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
        "eos_token_ids",
        "origins",
        "stream_began",
        "token_ids",
    )

    def __init__(
        self,
        max_tokens: int,
        eos_token_ids: Sequence[int] = (),
        on_commit: Callable[[int, int], None] | None = None,
        tell: Tell = silent,
    ) -> None:
        self._max_tokens = max_tokens
        self.eos_token_ids = frozenset(eos_token_ids)
        self._on_commit = on_commit
        self._tell = tell
        self._aside: list[int] = []  # positions len(token_ids) .. of the present cloud stream
        self._stream_next = 0  # the position that the present cloud stream has yet to send
        self.token_ids: list[int] = []
        self.origins: list[Origin] = []
        self.claimed_at: int | None = None
        self.closed = ""
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
        """Positions that the present cloud stream has yet to send before it reaches new ones."""
        return self.length - self._stream_next

    @property
    def open_to_device(self) -> bool:
        """Whether the device may commit the next position.

        After the claim; before it, as long as the present stream has sent no token or only such
        as were committed before it came to them.
        """
        return self.claimed_at is not None or not self.stream_began or self.stream_behind > 0

    @property
    def holds_aside(self) -> bool:
        """Whether cloud tokens are kept beyond the claim."""
        return bool(self._aside)

    def new_stream(self) -> None:
        """A new cloud stream begins, from the committed prefix: nothing of the old one counts."""
        self._aside.clear()
        self._stream_next = self.length
        self.stream_began = False
        self.diverged = False

    def receive(self, first_position: int, token_ids: Sequence[int]) -> None:
        """Take in tokens of the present cloud stream, at first_position and onward.

        Each is committed, held aside, or compared with what stands there and dropped; a position
        that the stream has sent before is ignored.

        Raises:
            ProtocolError: a position was left out; the stream cannot be used any further.
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
            if position < len(self.token_ids):
                self._compare(token_id, self.token_ids[position])
            elif self.claimed_at is None:
                self._commit(token_id, Origin.CLOUD)
            else:
                self._aside.append(token_id)

    def claim(self) -> int:
        """Claim the next position, and all after it, for the device; return that position."""
        assert self.claimed_at is None, "claimed twice"
        assert not self.closed, "claimed after the end"
        self.claimed_at = self.length
        self._tell(Claimed(self.length))
        return self.length

    def commit_device(self, position: int, token_id: int) -> None:
        """Commit the device's token at the next position.

        Allowed while the log is `open_to_device`.
        """
        assert position == len(self.token_ids), "the device commits the next position only"
        assert not self.closed, "committed after the end"
        assert self.open_to_device, "not claimed"
        if self._aside:
            self._compare(self._aside.pop(0), token_id)
        self._commit(token_id, Origin.DEVICE)

    def release_claim(self) -> None:
        """Give the claim back: what the cloud sent beyond it is committed after all."""
        if self.claimed_at is not None:
            self._tell(ClaimReturned())
        self.claimed_at = None
        aside, self._aside = self._aside, []
        for token_id in aside:
            if self.closed or self.diverged:
                return
            self._commit(token_id, Origin.CLOUD)

    def close(self, reason: str) -> None:
        """Close the log; the first reason stays."""
        self.closed = self.closed or reason

    def _compare(self, cloud_token_id: int, committed_token_id: int) -> None:
        """Drop a cloud token for a committed position; the first that differs ends the stream."""
        if cloud_token_id != committed_token_id:
            self.disagreed += 1
            self.diverged = True
            self._aside.clear()

    def _commit(self, token_id: int, origin: Origin) -> None:
        position = len(self.token_ids)
        self.token_ids.append(token_id)
        self.origins.append(origin)
        if self._on_commit is not None:
            self._on_commit(position, token_id)
        if token_id in self.eos_token_ids:
            self.close("stop")
        elif position + 1 >= self._max_tokens:
            self.close("length")
