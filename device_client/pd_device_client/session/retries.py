"""Whether and when a broken stream of the cloud is tried again."""

from zlib import crc32

from pd_core.errors import (
    CapacityError,
    CloudAuthenticationFailed,
    EngineError,
    PdError,
    ProtocolError,
    TransportError,
)

__all__ = ["retry_in_s"]

# Before the first, second, ... retry; a received token resets the count.
_WAITS_S = (0.1, 0.5, 2.0)
# No answer waits longer for room: a quota may say hours.
_LONGEST_S = 60.0


def retry_in_s(error: PdError, num_failures: int, request_id: str) -> float | None:
    """Return how long to wait for the next stream; None: a retry would not help.

    A cloud that stops breaks the streams of many devices at one moment. So that it is not run over
    when it is back, each waits a share of its own of the time, from half to all of it.

    Args:
        error: what ended the last stream.
        num_failures: failures in a row before this one.
        request_id: the answer's, of which the share is made.
    """
    if not _retryable(error) or num_failures >= len(_WAITS_S):
        return None
    wait_s = _WAITS_S[num_failures]
    if isinstance(error, CapacityError):
        wait_s = max(wait_s, error.retry_after_s)
        return wait_s if wait_s <= _LONGEST_S else None
    share = crc32(f"{request_id}/{num_failures}".encode()) / 2**32
    return wait_s * (1.0 + share) / 2


def _retryable(error: PdError) -> bool:
    if isinstance(error, CloudAuthenticationFailed):
        return False
    return isinstance(error, TransportError | CapacityError | EngineError | ProtocolError)
