"""Ids of calls: the same for the same request, and in the form that a model's template wants."""

import hashlib
import re
from collections.abc import Callable

__all__ = ["call_ids", "nine_letters"]

_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def call_ids(request_id: str, *, short: bool = False) -> Callable[[int], str]:
    """Return what names a request's calls by their numbers.

    Args:
        request_id: the request's id.
        short: in the form of `nine_letters`.
    """

    def call_id(index: int) -> str:
        digest = hashlib.sha256(f"{request_id} {index}".encode()).hexdigest()
        return digest[:9] if short else f"call_{digest[:24]}"

    return call_id


def nine_letters(call_id: str) -> str:
    """Return an id as Mistral's templates want it: nine letters and digits."""
    if _NINE.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:9]
