"""Incremental detokenisation: incomplete characters and possible stop strings are held back."""

from collections.abc import Callable, Sequence

from pd_core.errors import InvalidRequest

__all__ = ["TextStream"]

_REPLACEMENT = "\ufffd"


class TextStream:
    """Turns token ids into text, one at a time, releasing only what is final.

    It holds back an incomplete character (bytes that the next token may complete) and text that may
    be the beginning of a stop string. Each token's text is released exactly once and in order, so
    the released texts joined are the decoded text, cut before the stop string that is complete
    first.

    Args:
        decode: turns a list of ids into text.
        stop_strings: the text ends before the first of these.

    Attributes:
        stopped: a stop string was found; its tokens have trimmed or empty text, and no more tokens
            may be pushed.

    Raises:
        InvalidRequest: a stop string is empty.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str] = ()
    ) -> None:
        if not all(stop_strings):
            raise InvalidRequest("a stop string is empty; leave it out")
        self.stopped = False
        self._decode = decode
        self._stops = tuple(stop_strings)
        # Of the tokens whose text is known only the last few are kept: decoders look back (a
        # leading space depends on the token before), but decoding all each time is quadratic.
        self._window: list[int] = []
        self._known = 0  # tokens of the window whose text is known
        self._index = 0  # index of the next token pushed
        self._held: list[tuple[int, str]] = []  # decoded, not yet released

    def push(self, token_id: int) -> list[tuple[int, str]]:
        """Take one token; return (index, text) of every token whose text is now final."""
        assert not self.stopped, "a stop string ended this stream"
        self._window.append(token_id)
        self._index += 1
        self._decode_new(final=False)
        return self._release(final=False)

    def flush(self) -> list[tuple[int, str]]:
        """Return everything held back; broken UTF-8 becomes U+FFFD."""
        self._decode_new(final=True)
        return self._release(final=True)

    def _decode_new(self, *, final: bool) -> None:
        """Move the text of new tokens to `_held` once it ends on a whole character."""
        pending = len(self._window) - self._known
        if not pending:
            return
        before = self._decode(self._window[: self._known])
        after = self._decode(self._window)
        text = after[len(before) :]
        if text.endswith(_REPLACEMENT) and not final:
            return  # an incomplete character or broken bytes: the next whole character will tell
        first = self._index - pending
        # The characters belong to the token that completes them.
        self._held += [(i, "") for i in range(first, self._index - 1)]
        self._held.append((self._index - 1, text))
        if text:  # after a special token (no text) the decoder still needs the earlier tokens
            self._window = self._window[self._known :]
        self._known = len(self._window)

    def _release(self, *, final: bool) -> list[tuple[int, str]]:
        """Split `_held` into what is final and what may still belong to a stop string."""
        text = "".join(t for _, t in self._held)
        # The stop string that is complete first wins; of two that end together, the longer one. So
        # the cut does not depend on how the text was split into tokens.
        found = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if found:
            self.stopped = True
            released, self._held = self._trimmed(min(found)[1]), []
            return released
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        limit = len(text) - keep
        num_released, length = 0, 0
        for _, piece in self._held:
            if length + len(piece) > limit:
                break
            length += len(piece)
            num_released += 1
        released, self._held = self._held[:num_released], self._held[num_released:]
        return released

    def _trimmed(self, length: int) -> list[tuple[int, str]]:
        """Return all held tokens, with their joined text cut to `length` characters."""
        out = []
        for index, piece in self._held:
            out.append((index, piece[: max(length, 0)]))
            length -= len(piece)
        return out


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of text that is a proper prefix of stop."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
