"""Which failures of a cloud's stream are tried again, and after how long."""

from pd_core.errors import (
    CapacityError,
    CloudAuthenticationFailed,
    EngineError,
    PdError,
    ProtocolError,
    TransportError,
)

__all__ = ["retry_wait_s"]

_WAITS_S = (0.1, 0.5, 2.0)  # before the first, second, ... retry


def retry_wait_s(error: PdError, failures: int) -> float | None:
    """Return how long to wait before a stream is tried again; None: it is not.

    Args:
        error: why the last one ended.
        failures: how many have failed before it since a token was received.
    """
    if isinstance(error, CloudAuthenticationFailed) or failures >= len(_WAITS_S):
        return None
    if isinstance(error, CapacityError):
        return max(_WAITS_S[failures], error.retry_after_s)
    retried = isinstance(error, TransportError | EngineError | ProtocolError)
    return _WAITS_S[failures] if retried else None
