"""A running hash over one stream, kept by both sides: a changed bit anywhere on the way shows.

It begins with what was asked for, as each side understood it, and goes on with every token. So
equal seals at a token mean equal prompts, seeds and tokens up to there. Checksums of TCP miss about
one in 65,000 of the errors that reach them, and are made anew by every middlebox; TLS misses none,
but plaintext links exist. The hash is against accidents, not against an adversary.
"""

import hashlib
import struct
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from pd_core.generation import (
    Finished,
    FinishReason,
    RefinedPrompt,
    Start,
    TokenLogprobs,
    Tokens,
)
from pd_core.sampling.splitmix import MASK, mixed

__all__ = ["StreamSeal", "start_seal"]

# They change no token; the first is rounded to nanoseconds on the way. Older servers do not know of
# protected ranges; the device checks them in the refined prompt itself. Messages never go to a
# pd-server.
_LEFT_OUT = {"useful_for_s", "api_version", "protected_ranges", "messages"}
_REASONS = {FinishReason.STOP: 1, FinishReason.LENGTH: 2, FinishReason.CANCELLED: 3}


class StreamSeal:
    """The state after the messages so far; a step is one integer hash a token.

    A step is a bijection of the state for any one token, and of the token for any one state: a
    single wrong token, or a lost one, changes every later seal.

    Args:
        start: the stream's first message.
    """

    __slots__ = ("_state",)

    def __init__(self, start: Start) -> None:
        self._state = start_seal(start)

    def after_tokens(self, tokens: Tokens) -> int:
        """Go on with these tokens; return the new seal, unsigned, of 64 bits."""
        state = self._state
        for position, token_id in enumerate(tokens.token_ids, tokens.first_position):
            state = mixed(state ^ (position << 32 | token_id))
        for logprobs in tokens.logprobs:
            state = _after_logprobs(state, logprobs)
        self._state = state
        return state

    def after_refined(self, refined: RefinedPrompt) -> int:
        """Go on with a refined prompt; return the new seal."""
        state = mixed(self._state ^ MASK)
        for first, end in refined.kept_ranges:
            state = mixed(state ^ (first << 32 | end))
        self._state = state
        return state

    def after_finished(self, finished: Finished) -> int:
        """Go on with the end; return the last seal."""
        end = _REASONS[finished.reason] << 32 | finished.tokens_generated
        self._state = mixed(self._state ^ MASK ^ end)
        return self._state


def _after_logprobs(state: int, logprobs: TokenLogprobs) -> int:
    """Go on with what is said of one token: its logprob and how many follow, then those."""
    state = mixed(state ^ (_bits(logprobs.logprob) << 32 | len(logprobs.top_ids)))
    for token_id, logprob in zip(logprobs.top_ids, logprobs.top_logprobs, strict=True):
        state = mixed(state ^ (_bits(logprob) << 32 | token_id))
    return state


def _bits(value: float) -> int:
    """Return a float32's 32 bits."""
    return int.from_bytes(struct.pack("<f", value), "little")


def start_seal(start: Start) -> int:
    """Return the seal of a Start: 64 bits of a sha256 over all fields that differ from default.

    A field that one side does not know yet changes nothing as long as it is not used.
    """
    hashed = hashlib.sha256(_told(start))
    return int.from_bytes(hashed.digest()[:8], "little")


def _told(value: Any) -> bytes:
    """Return a dataclass as bytes, fields in order, those at their defaults left out."""
    told = []
    for field in fields(value):
        default = _default(field)
        content = getattr(value, field.name)
        if field.name in _LEFT_OUT or content == default:
            continue
        name, data = field.name.encode(), _bytes(content, default)
        told.append(struct.pack("<II", len(name), len(data)) + name + data)
    return b"".join(told)


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _bytes(content: Any, default: Any) -> bytes:
    if is_dataclass(content):
        return _told(content)
    if isinstance(content, tuple) and content and isinstance(content[0], tuple):
        return b"".join(struct.pack("<Id", token_id, bias) for token_id, bias in content)
    if isinstance(content, tuple):
        return struct.pack(f"<{len(content)}I", *content)
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, float) or isinstance(default, float):
        return float(content).hex().encode()  # 1 and 1.0 are one value on the wire
    return b"%d" % content
