"""One table maps every error class to gRPC and HTTP; here every class is walked."""

import json
from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pd_core.errors import CapacityError, PdError, error_class, status_of
from pd_server.operations.control_plane import error_response
from pd_server.rpc.grpc_errors import ERROR_DOMAIN, abort_arguments, error_to_status


def _classes(cls: type[PdError] = PdError) -> Iterator[type[PdError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _classes(sub)


@pytest.mark.parametrize("cls", list(_classes()))
def test_every_class_has_a_grpc_status_with_its_name(cls: type[PdError]) -> None:
    error = cls("what is wrong, and the mend")
    code, message, metadata = abort_arguments(error)
    assert code is grpc.StatusCode[status_of(cls).grpc]
    assert code is not grpc.StatusCode.OK
    assert message == "what is wrong, and the mend"
    assert [key for key, _ in metadata] == ["grpc-status-details-bin"]
    status = Status.FromString(metadata[0][1])
    assert (status.code, status.message) == (code.value[0], message)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (cls.__name__, ERROR_DOMAIN)
    assert error_class(info.reason) is cls
    assert len(status.details) == (2 if issubclass(cls, CapacityError) else 1)


@pytest.mark.parametrize("cls", list(_classes()))
def test_every_class_has_an_http_answer(cls: type[PdError]) -> None:
    response = error_response(cls("words"))
    assert response.status_code == status_of(cls).http
    assert 400 <= response.status_code < 600
    error = json.loads(bytes(response.body))["error"]
    assert error == {"type": cls.__name__, "message": "words", "code": status_of(cls).grpc}
    assert ("retry-after" in response.headers) == issubclass(cls, CapacityError)


def test_retry_info_carries_the_delay() -> None:
    status = error_to_status(CapacityError("full", retry_after_s=2.5))
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5
    assert error_response(CapacityError("full", 2.5)).headers["retry-after"] == "3"


def test_nothing_of_an_unknown_exception_leaks() -> None:
    code, message, metadata = abort_arguments(ValueError("secret prompt text"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message
    assert b"secret" not in metadata[0][1]
