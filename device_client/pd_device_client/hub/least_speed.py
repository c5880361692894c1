"""How slowly a hub may send: one that drips a byte now and then would never end."""

import time  # noqa: TID251 - a pull has no virtual clock
from collections.abc import Callable, Iterable, Iterator

import httpx2

__all__ = ["at_least"]

_BYTES_PER_S = 1000
_OVER_S = 60.0


def at_least(
    parts: Iterable[bytes], now_s: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """Yield the parts of an answer as they come.

    Raises:
        httpx2.ReadTimeout: over a minute, fewer than 1,000 bytes a second came.
    """
    since_s, came = now_s(), 0
    for part in parts:
        came += len(part)
        yield part
        if (took_s := now_s() - since_s) >= _OVER_S:
            if came < took_s * _BYTES_PER_S:
                raise httpx2.ReadTimeout(f"it sends only {came / took_s:.0f} bytes a second")
            since_s, came = now_s(), 0
