"""Which words were kept on this device: they stay here, also as the beginning of a longer text.

The turns of a conversation come as requests of their own, each with all turns before it. So a turn
of a private conversation begins with the words of an earlier private request.
"""

import hashlib
import secrets
from collections import Counter, OrderedDict

__all__ = ["PrivateWords"]

_MOST = 10_000


class PrivateWords:
    """Remembers texts and conversations, as digests that mean nothing to another process.

    Args:
        most: the oldest of more texts, and of more conversations, are forgotten.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._key = secrets.token_bytes(32)
        self._texts: OrderedDict[tuple[int, bytes], str] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self._conversations: OrderedDict[bytes, str] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether any are remembered."""
        return bool(self._texts or self._conversations)

    def add(self, texts: list[str], conversation: str | None, rule: str) -> None:
        """Remember what a private request says, and its conversation.

        Args:
            texts: each is remembered by itself; an empty one is not.
            conversation: its id; None: it has none.
            rule: what kept it here, or "".
        """
        for text in texts:
            content = _bytes(text)
            if content:
                key = (len(content), self._digest(content).digest())
                self._lengths[len(content)] += key not in self._texts
                self._texts.setdefault(key, rule)
                self._texts.move_to_end(key)
        if conversation is not None:
            digest = self._digest(_bytes(conversation)).digest()
            self._conversations.setdefault(digest, rule)
            self._conversations.move_to_end(digest)
        self._forget()

    def find(self, texts: list[str], conversation: str | None) -> str | None:
        """Return what kept an earlier turn here ("": no rule); None: there was no such turn."""
        if conversation is not None:
            rule = self._conversations.get(self._digest(_bytes(conversation)).digest())
            if rule is not None:
                return rule
        return next((rule for text in texts if (rule := self._beginning(text)) is not None), None)

    def _beginning(self, text: str) -> str | None:
        content, digest, done = memoryview(_bytes(text)), self._digest(), 0
        for length in sorted(self._lengths):
            if length > len(content):
                break
            digest.update(content[done:length])
            done = length
            rule = self._texts.get((length, digest.copy().digest()))
            if rule is not None:
                return rule
        return None

    def _digest(self, content: bytes = b"") -> "hashlib.blake2b":
        return hashlib.blake2b(content, key=self._key, digest_size=16)

    def _forget(self) -> None:
        while len(self._texts) > self._most:
            (length, _), _ = self._texts.popitem(last=False)
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]
        while len(self._conversations) > self._most:
            self._conversations.popitem(last=False)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
