"""The one place where an error becomes a gRPC status, with details a client can act on."""

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pd_core.errors import CapacityError, PdError, status_of

__all__ = ["ERROR_DOMAIN", "abort_arguments", "error_to_status"]

ERROR_DOMAIN = "pd_device"
_DETAILS_KEY = "grpc-status-details-bin"


def error_to_status(error: Exception) -> Status:
    """Return the rich status of an error.

    A PdError keeps its message and carries an ErrorInfo (reason: the class's name) and, where a
    retry makes sense, a RetryInfo. No detail of any other exception leaks.
    """
    if not isinstance(error, PdError):
        code: int = grpc.StatusCode.INTERNAL.value[0]
        return Status(code=code, message="internal error; the server's log has the cause")
    details = [_packed(ErrorInfo(reason=type(error).__name__, domain=ERROR_DOMAIN))]
    if isinstance(error, CapacityError):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(_packed(RetryInfo(retry_delay=delay)))
    code = grpc.StatusCode[status_of(error).grpc].value[0]
    return Status(code=code, message=str(error), details=details)


def abort_arguments(
    error: Exception,
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return code, details and trailing metadata for `ServicerContext.abort`."""
    status = error_to_status(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return code, status.message, ((_DETAILS_KEY, status.SerializeToString()),)


def _packed(message: ErrorInfo | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
