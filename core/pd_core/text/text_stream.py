"""Incremental detokenisation: incomplete characters and possible stop strings are held back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from pd_core.errors import InvalidRequest

__all__ = ["TextStream"]

_REPLACEMENT = "\ufffd"
# Some decoders write one U+FFFD for each byte of an incomplete character, which has at most three.
_MAX_INCOMPLETE = 3
# Tokens held back beside those that may belong to a stop string, before the wait is given up.
_MAX_WAITING = 16
# Most tokens that are decoded again for a new one, and how many of them stay when there are more.
_MAX_WINDOW = 32
_KEPT_WINDOW = 12

_NOTHING_HIDDEN: Mapping[int, str] = MappingProxyType({})


@dataclass(slots=True)
class _Piece:
    """One token that is held back.

    Attributes:
        index: its number in the stream.
        text: its text as far as it is final.
        hidden: the text of a token that is not shown, for stop strings only.
    """

    index: int
    text: str = ""
    hidden: str = ""


class TextStream:
    """Turns token ids into text, one at a time, releasing only what is final.

    It holds back an incomplete character (bytes that the next token may complete) and text that may
    be the beginning of a stop string; both are bounded. Each token's text is released exactly once
    and in order, so the released texts joined are the decoded text, cut before the stop string that
    is complete first.

    Args:
        decode: turns a list of ids into text.
        stop_strings: the text ends before the first of these.
        behind: the text continues that of these tokens: a space at its beginning, which decoders
            take from a text of its own, stays.
        hidden: the texts of tokens that `decode` leaves out. They are not shown, but a stop string
            may contain them.

    Attributes:
        stopped: a stop string was found; its tokens have trimmed or empty text, and no more tokens
            may be pushed.
        stop_string: that stop string.

    Raises:
        InvalidRequest: a stop string is empty.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop_strings: Sequence[str] = (),
        *,
        behind: Sequence[int] = (),
        hidden: Mapping[int, str] = _NOTHING_HIDDEN,
    ) -> None:
        if not all(stop_strings):
            raise InvalidRequest("a stop string is empty; leave it out")
        self.stopped = False
        self.stop_string: str | None = None
        self._decode = decode
        self._stops = tuple(stop_strings)
        self._hidden = hidden
        # The text of a hidden token is no text of the answer: only who writes it whole means it.
        self._full_stops = tuple(s for s in self._stops if any(h in s for h in hidden.values()))
        # A token may be as little as one byte of a character.
        longest = max((len(stop.encode(errors="replace")) for stop in self._stops), default=0)
        self._max_held = _MAX_WAITING + longest
        self._count = 0  # tokens pushed
        self._held: list[_Piece] = []
        self._num_final = 0  # of those held, from the first on
        self._newest = _Piece(-1)  # of the newest token that is not hidden
        # Decoders look back (a leading space depends on the token before), but decoding all each
        # time is quadratic: of the tokens whose text is known only the last few are kept.
        self._window = self._last_words(behind)
        self._known = self._decode(self._window)  # the window's text as far as it was given out
        self._num_new = 0  # tokens of the window since then
        self._incomplete = ""  # the window's text after `_known`, while a token may change it

    def push(self, token_id: int) -> list[tuple[int, str]]:
        """Take one token; return (index, text) of every token whose text is now final."""
        assert not self.stopped, "a stop string ended this stream"
        piece = _Piece(self._count, hidden=self._hidden.get(token_id, ""))
        self._count += 1
        self._held.append(piece)
        if not piece.hidden:
            self._newest = piece
            self._window.append(token_id)
            self._num_new += 1
            self._read(final=False)
        elif not self._incomplete:
            self._num_final += 1
        enough = len(self._held) > self._max_held
        return self._release(final=enough)

    def flush(self) -> list[tuple[int, str]]:
        """Return everything held back; broken UTF-8 becomes U+FFFD."""
        return self._release(final=True)

    def _last_words(self, token_ids: Sequence[int]) -> list[int]:
        """Return the last few tokens: enough to have text, and to begin with a whole character."""
        shown = (i for i in reversed(token_ids) if i not in self._hidden)
        last = list(islice(shown, _KEPT_WINDOW))[::-1]
        for first in range(len(last) - 1, 0, -1):
            if self._begins_whole(last[first:]):
                return last[first:]
        return last

    def _begins_whole(self, token_ids: Sequence[int]) -> bool:
        """Return whether tokens have text, and no earlier token belongs to its first character."""
        text = self._decode(token_ids)
        return bool(text) and not text.startswith(_REPLACEMENT)

    def _read(self, *, final: bool) -> None:
        """Give the newest token the text that is new; hold it while its end is incomplete."""
        after = self._decode(self._window)
        new = self._new_text(after)
        self._incomplete = "" if final else _incomplete_end(new, self._num_new)
        grown = new[: len(new) - len(self._incomplete)]
        self._newest.text += grown
        if not self._incomplete:
            self._num_final = len(self._held)
        elif grown:  # the newest token's last bytes wait, those before it are complete
            self._num_final = len(self._held) - 1
        else:
            return
        num_new, self._num_new = self._num_new, 0
        if len(self._window) > _MAX_WINDOW:
            self._window = self._window[-_KEPT_WINDOW:]
        elif grown and not self._incomplete and self._begins_whole(self._window[-num_new:]):
            self._window = self._window[-num_new:]
        else:  # an incomplete character, or no text: the decoder still needs the earlier tokens
            self._known = after[: len(after) - len(self._incomplete)]
            return
        after = self._decode(self._window)
        self._known = after[: max(len(after) - len(self._incomplete), 0)]

    def _new_text(self, after: str) -> str:
        """Return what follows the known text in `after`, the window's text."""
        # What was given out as broken, or stood at a prompt's end, may be completed nevertheless.
        for known in (self._known, self._known.rstrip(_REPLACEMENT)):
            if after.startswith(known):
                return after[len(known) :]
        # Byte fallback writes a whole run of bytes as broken as long as its last one is.
        return self._decode(self._window[len(self._window) - self._num_new :])

    def _release(self, *, final: bool) -> list[tuple[int, str]]:
        """Split `_held` into what is final and what may still belong to a stop string."""
        found, num_released = self._search() if self._stops else ([], self._num_final)
        if self._incomplete and (final or found):  # no later token will complete it
            self._read(final=True)
            found, _ = self._search()
        if found:
            self.stopped = True
            # Of two that end together, the longer one: so the cut does not depend on how the text
            # was split into tokens.
            _, begin, self.stop_string = min(found)
            released, self._held = _trimmed(self._held, begin), []
            return released
        if final:
            num_released = len(self._held)
        released = [(piece.index, piece.text) for piece in self._held[:num_released]]
        del self._held[:num_released]
        self._num_final = max(self._num_final - num_released, 0)
        return released

    def _search(self) -> tuple[list[tuple[int, int, str]], int]:
        """Look for stop strings, in the text that is shown and in that with hidden tokens.

        Returns:
            (end, begin, stop string) of the first place of each, in shown characters, and how many
            of the held tokens are final and surely before any.
        """
        shown = "".join([piece.text for piece in self._held])
        full = "".join([piece.hidden or piece.text for piece in self._held])
        found = [(at + len(s), at, s) for s in self._stops if (at := shown.find(s)) >= 0]
        shown_left = full_left = len(shown) - _longest_overlap(shown, self._stops)
        if full != shown:
            for s in self._full_stops:
                if (at := full.find(s)) >= 0:
                    end = self._shown_before(at + len(s))
                    found.append((end, self._shown_before(at), s))
            full_left = len(full) - _longest_overlap(full, self._full_stops)
        for number, piece in enumerate(self._held[: self._num_final]):
            shown_left -= len(piece.text)
            full_left -= len(piece.hidden or piece.text)
            if shown_left < 0 or full_left < 0:
                return found, number
        return found, self._num_final

    def _shown_before(self, position: int) -> int:
        """Return how many shown characters lie before a position of the text with hidden tokens."""
        shown = 0
        for piece in self._held:
            if not piece.hidden:
                shown += min(len(piece.text), position)
            position = max(position - len(piece.hidden or piece.text), 0)
        return shown


def _incomplete_end(text: str, num_tokens: int) -> str:
    """Return the end of the text of new tokens that may be an incomplete character."""
    broken = len(text) - len(text.rstrip(_REPLACEMENT))
    if num_tokens > _MAX_INCOMPLETE:  # with fewer, bytes of earlier tokens may be among them
        broken = min(broken, _MAX_INCOMPLETE)
    return text[len(text) - broken :]


def _trimmed(held: Sequence[_Piece], length: int) -> list[tuple[int, str]]:
    """Return held tokens, with their joined text cut to `length` characters."""
    out = []
    for piece in held:
        out.append((piece.index, piece.text[: max(length, 0)]))
        length -= len(piece.text)
    return out


def _longest_overlap(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest suffix of text that is a proper prefix of a stop string."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of text that is a proper prefix of stop."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
