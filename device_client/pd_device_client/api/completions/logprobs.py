"""How likely the tokens were, in the forms of OpenAI's two endpoints and of vLLM's extension.

A chat's answer has a list of entries, a completion has four lists side by side. Which side a figure
came from stands in the report under the key `pd`.

An entry belongs to the text: one without text of its own (part of a character, a hidden token)
comes with the text that follows it. Where an answer ended by itself or at a stop string, what comes
after its text has no entry, so the entries' tokens are the text; where the limit cut it, they are
all told.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol

from pd_core.generation import FinishReason, TokenLogprobs
from pd_core.text.token_bytes import TokenBytes
from pd_device_client.contract.outcome import Shown

__all__ = [
    "ChatLogprobs",
    "Entries",
    "Entry",
    "Logprobs",
    "TextLogprobs",
    "finite",
    "prompt_report",
    "side_report",
]

_LEAST = -9999.0
"""Stands for minus infinity, which JSON lacks; OpenAI and vLLM write the same."""


class Logprobs(Protocol):
    """One form of entries."""

    def told(self, entries: Sequence["Entry"]) -> dict[str, Any]:
        """Return the value of a choice's key "logprobs".

        Args:
            entries: those of the choice's new tokens, in order.
        """
        ...


Entry = tuple[int, TokenLogprobs | None, int]
"""A token, what is known of it (None of a prompt's first), and where its text begins."""


class Entries:
    """The tokens of one choice whose entries are due or were told.

    Args:
        form: of the endpoint.
        prompt: entries that come first, where the choice's text begins with the prompt.
        first_offset: where the answer begins in the choice's text.

    Attributes:
        num_told: tokens of the answer that have had their entries, or have them next.
    """

    def __init__(self, form: Logprobs, prompt: Sequence[Entry] = (), first_offset: int = 0) -> None:
        self._form = form
        self._offset = first_offset
        self._waiting: list[Entry] = []
        self._due = list(prompt)
        self.num_told = 0

    def add(self, shown: Shown) -> None:
        """Take the next token."""
        self._waiting.append((shown.token_id, shown.logprobs, self._offset))
        self._offset += len(shown.text)
        if shown.text:
            self._tell()

    def end(self, reason: FinishReason) -> None:
        """End the answer."""
        if reason is not FinishReason.STOP:
            self._tell()
        self._waiting.clear()

    def taken(self) -> dict[str, Any] | None:
        """Return what is due, once; None: nothing."""
        due, self._due = self._due, []
        return self._form.told(due) if due else None

    def _tell(self) -> None:
        self._due += self._waiting
        self.num_told += len(self._waiting)
        self._waiting.clear()


class ChatLogprobs:
    """The form of /v1/chat/completions.

    Args:
        token_bytes: says each token's bytes.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._bytes = token_bytes

    def told(self, entries: Sequence[Entry]) -> dict[str, Any]:
        return {"content": [self._entry(entry) for entry in entries], "refusal": None}

    def _entry(self, entry: Entry) -> dict[str, Any]:
        token_id, known, _ = entry
        assert known is not None, "a chat's answer has a logprob of every token"
        top = zip(known.top_ids, known.top_logprobs, strict=True)
        return {
            **self._one(token_id, known.logprob),
            "top_logprobs": [self._one(other, logprob) for other, logprob in top],
        }

    def _one(self, token_id: int, logprob: float) -> dict[str, Any]:
        spelt = self._bytes.of(token_id)
        return {"token": _name(spelt), "logprob": finite(logprob), "bytes": list(spelt)}


class TextLogprobs:
    """The form of /v1/completions.

    Args:
        token_bytes: says each token's bytes.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._bytes = token_bytes

    def told(self, entries: Sequence[Entry]) -> dict[str, Any]:
        return {
            "text_offset": [offset for _, _, offset in entries],
            "token_logprobs": [known and finite(known.logprob) for _, known, _ in entries],
            "tokens": [self._name(token_id) for token_id, _, _ in entries],
            "top_logprobs": [
                None if known is None else self._top(token_id, known)
                for token_id, known, _ in entries
            ],
        }

    def _top(self, token_id: int, known: TokenLogprobs) -> dict[str, float]:
        """Return the most likely tokens, with the one that was chosen in any case."""
        ids = [*known.top_ids, token_id]
        logprobs = [*known.top_logprobs, known.logprob]
        top = dict[str, float]()
        for other, logprob in zip(ids, logprobs, strict=True):  # of two of one name the likelier
            top.setdefault(self._name(other), finite(logprob))
        return top

    def _name(self, token_id: int) -> str:
        return _name(self._bytes.of(token_id), "bytes:")


def prompt_report(
    token_bytes: TokenBytes, token_ids: Sequence[int], known: Sequence[TokenLogprobs]
) -> list[dict[str, Any] | None]:
    """Return vLLM's `prompt_logprobs`: for each token what was likely there; None for the first.

    Args:
        token_bytes: says each token's bytes.
        token_ids: the prompt.
        known: of all its tokens but the first.
    """
    report: list[dict[str, Any] | None] = [None]
    for token_id, one in zip(token_ids[1:], known, strict=True):
        ranked = dict(zip(one.top_ids, enumerate(one.top_logprobs, 1), strict=True))
        ranks: dict[int, tuple[int | None, float]] = {token_id: (None, one.logprob)}
        ranks.update(ranked)
        report.append(
            {
                str(other): {
                    "logprob": finite(logprob),
                    "rank": rank,
                    "decoded_token": token_bytes.of(other).decode(errors="replace"),
                }
                for other, (rank, logprob) in ranks.items()
            }
        )
    return report


def side_report(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return which side the figures came from, as runs of tokens in order."""
    runs = groupby(shown, key=lambda one: one.origin)
    return [{"origin": origin.value, "tokens": len(list(run))} for origin, run in runs]


def _name(spelt: bytes, broken: str = "") -> str:
    r"""Return a token's text; bytes that are none are written as \xf0\x9f, behind `broken`."""
    try:
        return spelt.decode()
    except UnicodeDecodeError:
        return broken + "".join(f"\\x{byte:02x}" for byte in spelt)


def finite(logprob: float) -> float:
    """Return a logprob as JSON can write it."""
    return max(logprob, _LEAST)
