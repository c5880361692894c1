"""Whether a stream of the cloud that failed is opened again, and when."""

from pd_core.errors import (
    CapacityError,
    CloudAuthenticationFailed,
    EngineError,
    PdError,
    ProtocolError,
    TransportError,
)

__all__ = ["retry_wait_s"]

# Waits before the first, second, ... retry of a broken stream; a received token resets the count.
_RETRY_WAITS_S = (0.1, 0.5, 2.0)


def retry_wait_s(error: PdError, num_failures: int) -> float | None:
    """Return the seconds to wait before a new stream; None: a retry would not help.

    Args:
        error: why the stream ended.
        num_failures: streams that failed before it, since the last token.
    """
    if not _retryable(error) or num_failures >= len(_RETRY_WAITS_S):
        return None
    wait_s = _RETRY_WAITS_S[num_failures]
    return max(wait_s, error.retry_after_s) if isinstance(error, CapacityError) else wait_s


def _retryable(error: PdError) -> bool:
    if isinstance(error, CloudAuthenticationFailed):
        return False
    return isinstance(error, TransportError | CapacityError | EngineError | ProtocolError)
