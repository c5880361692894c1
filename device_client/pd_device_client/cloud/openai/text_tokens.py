"""The text of a cloud that gives no ids, as tokens of this device's model."""

import re
from collections.abc import Sequence

from pd_core.errors import ProtocolError
from pd_device_client.cloud.openai.chunk import Chunk
from pd_device_client.cloud.openai.device_model import DeviceModel

__all__ = ["TextTokens"]

_LONGEST_WORD = 48  # characters that are held back; then a word is taken apart
# Where a word begins no earlier token reaches beyond, for all usual tokenizers.
_LAST_WORD = re.compile(r"\s+\S*\Z|\S+\Z")


class TextTokens:
    """Takes a stream's chunks and gives tokens with the same text.

    The last word is held back, since more letters may give it other tokens.

    Args:
        model: what this device runs.
        behind: the answer's tokens before the first.
    """

    def __init__(self, model: DeviceModel, behind: Sequence[int]) -> None:
        self._tokenizer = model.tokenizer
        self._specials = tuple(model.tokenizer.special_tokens.values())
        self._stream = model.tokenizer.stream(behind=behind)
        self._behind = list(behind)
        self._held = ""
        self._ours = ""  # text that the tokens have given, and the check has not seen
        self._theirs = ""
        self._at_beginning = not behind  # detokenisers may take the space from there

    def take(self, chunk: Chunk) -> tuple[int, ...]:
        """Return the tokens that no more text can change.

        Raises:
            ProtocolError: this model's tokenizer cannot write the text.
        """
        self._held += chunk.text
        found = _LAST_WORD.search(self._held)
        cut = len(self._held) if found is None else found.start()
        if len(self._held) - cut > _LONGEST_WORD:
            cut = len(self._held) - 1
        whole, self._held = self._held[:cut], self._held[cut:]
        return self._tokens(whole)

    def end(self) -> tuple[int, ...]:
        """Return the tokens of what was held back; raises as `take`."""
        whole, self._held = self._held, ""
        ids = self._tokens(whole)
        self._ours += "".join(text for _, text in self._stream.flush())
        self._check()
        left = self._ours + self._theirs
        if left.strip() if self._at_beginning else left:
            raise _unwritable()
        return ids

    def _tokens(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        ids = self._encoded(text)
        for token_id in ids:
            self._ours += "".join(shown for _, shown in self._stream.push(token_id))
        self._theirs += text
        self._behind += ids
        self._check()
        return tuple(ids)

    def _encoded(self, text: str) -> list[int]:
        """Return ids whose text continues the text so far.

        A tokenizer may put a space before a text that begins inside a word. Then the last word is
        encoded with it, and must begin with the tokens that it already has.
        """
        ids = self._plain(text)
        behind = self._behind[-_LONGEST_WORD:]
        if not behind or self._tokenizer.continuation(ids, behind) == text:
            return ids
        before = self._tokenizer.decode(behind)
        known, both = self._plain(before), self._plain(before + text)
        return both[len(known) :] if both[: len(known)] == known else ids

    def _plain(self, text: str) -> list[int]:
        """Encode text in which the names of special tokens are plain words."""
        parts = [text]
        for special in self._specials:
            if special in text:
                half = max(len(special) // 2, 1)
                apart = (special[:half], special[half:])
                parts = [piece for part in parts for piece in _split(part, special, apart)]
        return [token_id for part in parts if part for token_id in self._tokenizer.encode(part)]

    def _check(self) -> None:
        if self._at_beginning:
            ours, theirs = self._ours.lstrip(), self._theirs.lstrip()
            if not ours or not theirs:
                return
            self._ours, self._theirs, self._at_beginning = ours, theirs, False
        common = min(len(self._ours), len(self._theirs))
        if self._ours[:common] != self._theirs[:common]:
            raise _unwritable()
        self._ours, self._theirs = self._ours[common:], self._theirs[common:]


def _split(text: str, special: str, apart: tuple[str, str]) -> list[str]:
    """Return the text in parts, none of which has the special token."""
    pieces = text.split(special)
    out = [pieces[0]]
    for piece in pieces[1:]:
        out[-1] += apart[0]
        out.append(apart[1] + piece)
    return out


def _unwritable() -> ProtocolError:
    return ProtocolError("this model's tokenizer cannot write the text that the cloud sends")
