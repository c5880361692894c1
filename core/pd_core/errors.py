"""Every error a user can meet, and the one table that maps each to gRPC and HTTP.

    PdError
    |-- ConfigError                a setting, file or flag is wrong; nothing was started
    |   |-- ModelError             a checkpoint cannot be loaded
    |   |-- TraceError             a trace row is broken (the line is named)
    |   `-- PortInUse
    |-- RequestError               this request is wrong; others are not affected
    |   |-- InvalidRequest
    |   |   `-- ContradictoryPromises
    |   |-- CloudBudgetSpent       the caps leave the cloud no tokens
    |   |-- InvalidSamplingParams
    |   |-- InvalidConstraint      the form asked for cannot be used, or not here
    |   |-- PromptTooLong
    |   |-- TokenOutOfVocabulary
    |   |-- TokenLimitTooHigh
    |   |-- ProtocolError          the stream's rules are broken (a second Start, ...)
    |   |-- FingerprintMismatch
    |   `-- Unauthenticated
    |-- CapacityError              nothing is wrong with the request: try again later
    |   |-- QueueFull
    |   |-- QuotaExceeded          the key has used what it may
    |   |-- RequestExpired         it waited longer than it was useful for
    |   |-- NotReady
    |   `-- ShuttingDown
    |-- TransportError             the network or the other side failed
    |   |-- CloudUnavailable
    |   |-- CloudAuthenticationFailed
    |   |-- CloudTimeout
    |   |-- LinkCorrupted          a message was changed on its way
    |   `-- HubUnavailable         a model hub, while pulling a model
    `-- EngineError                the model failed while running
        |-- EngineDead
        `-- BothEnginesFailed      cloud and device failed; what was committed is kept

A message says what is wrong and how to fix it. Codes are names of google.rpc.Code, so that this
module needs no gRPC.
"""

from typing import NamedTuple

__all__ = [
    "STATUS",
    "BothEnginesFailed",
    "CapacityError",
    "CloudAuthenticationFailed",
    "CloudBudgetSpent",
    "CloudTimeout",
    "CloudUnavailable",
    "ConfigError",
    "ContradictoryPromises",
    "EngineDead",
    "EngineError",
    "FingerprintMismatch",
    "HubUnavailable",
    "InvalidConstraint",
    "InvalidRequest",
    "InvalidSamplingParams",
    "LinkCorrupted",
    "ModelError",
    "NotReady",
    "PdError",
    "PortInUse",
    "PromptTooLong",
    "ProtocolError",
    "QueueFull",
    "QuotaExceeded",
    "RequestError",
    "RequestExpired",
    "ShuttingDown",
    "Status",
    "TokenLimitTooHigh",
    "TokenOutOfVocabulary",
    "TraceError",
    "TransportError",
    "Unauthenticated",
    "drop_frames",
    "error_class",
    "status_of",
]


class PdError(Exception):
    """Base of all errors of this project."""


class ConfigError(PdError):
    """A setting, a file or a flag is wrong; nothing was started."""


class ModelError(ConfigError):
    """A checkpoint cannot be loaded; the message says why."""


class TraceError(ConfigError):
    """A trace cannot be read; the message names the file and the line."""


class PortInUse(ConfigError):
    """A port to listen on is taken."""


class RequestError(PdError):
    """The request itself is wrong; sending it again unchanged cannot help."""


class InvalidRequest(RequestError):
    """A field of the request is missing or out of its range."""


class ContradictoryPromises(InvalidRequest):
    """Two promises cannot both be kept; the message names both."""


class CloudBudgetSpent(RequestError):
    """The user's caps leave the cloud no tokens, and no other side can go on."""


class InvalidSamplingParams(RequestError):
    """A sampling parameter is out of its range."""


class InvalidConstraint(RequestError):
    """The form asked for (schema, expression or grammar) cannot be used, or not here."""


class PromptTooLong(RequestError):
    """The prompt does not fit the model's context."""


class TokenOutOfVocabulary(RequestError):
    """A token id is not an id of the model's vocabulary."""


class TokenLimitTooHigh(RequestError):
    """The request asks for more tokens than the server or the context allows."""


class ProtocolError(RequestError):
    """The stream's rules were broken, for example by a second Start."""


class FingerprintMismatch(RequestError):
    """The two sides run different tokenizers, templates or weights."""


class Unauthenticated(RequestError):
    """The key is missing or wrong."""


class CapacityError(PdError):
    """The request is valid, but cannot be served now.

    Attributes:
        retry_after_s: seconds after which a retry makes sense.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    """The admission queue is full."""


class QuotaExceeded(CapacityError):
    """The key has used all that it may for now."""


class RequestExpired(CapacityError):
    """The request waited in the queue for longer than it was useful for."""


class NotReady(CapacityError):
    """The model is not loaded yet."""


class ShuttingDown(CapacityError):
    """The server is draining and admits no new requests."""


class TransportError(PdError):
    """The network between the two sides, or the far side, failed."""


class CloudUnavailable(TransportError):
    """The cloud cannot be reached, or the stream broke."""


class CloudAuthenticationFailed(TransportError):
    """The cloud refused our key, or its certificate cannot be trusted."""


class CloudTimeout(TransportError):
    """The cloud did not answer in time."""


class LinkCorrupted(TransportError):
    """A message did not arrive as it was sent; nothing of it was used."""


class HubUnavailable(TransportError):
    """A model hub cannot be reached, or the connection broke."""


class EngineError(PdError):
    """A model failed while running."""


class EngineDead(EngineError):
    """The engine failed for good; its process must be restarted."""


class BothEnginesFailed(EngineError):
    """Neither cloud nor device can go on; the tokens committed so far are kept."""


class Status(NamedTuple):
    """How an error leaves the process."""

    grpc: str
    http: int
    exit_code: int


# A class that is not listed has the status of its nearest listed ancestor.
STATUS: dict[type[PdError], Status] = {
    PdError: Status("INTERNAL", 500, 1),
    ConfigError: Status("FAILED_PRECONDITION", 500, 2),
    PortInUse: Status("UNAVAILABLE", 503, 2),
    RequestError: Status("INVALID_ARGUMENT", 400, 2),
    TokenLimitTooHigh: Status("OUT_OF_RANGE", 400, 2),
    FingerprintMismatch: Status("FAILED_PRECONDITION", 409, 2),
    Unauthenticated: Status("UNAUTHENTICATED", 401, 2),
    CapacityError: Status("RESOURCE_EXHAUSTED", 429, 75),
    RequestExpired: Status("DEADLINE_EXCEEDED", 504, 75),
    NotReady: Status("UNAVAILABLE", 503, 75),
    ShuttingDown: Status("UNAVAILABLE", 503, 75),
    TransportError: Status("UNAVAILABLE", 502, 69),
    CloudAuthenticationFailed: Status("UNAUTHENTICATED", 502, 77),
    CloudTimeout: Status("DEADLINE_EXCEEDED", 504, 69),
    LinkCorrupted: Status("DATA_LOSS", 502, 69),
    EngineError: Status("INTERNAL", 500, 70),
    EngineDead: Status("UNAVAILABLE", 503, 70),
}


def status_of(error: PdError | type[PdError]) -> Status:
    """Return the gRPC code, HTTP status and exit code of an error or error class."""
    cls = error if isinstance(error, type) else type(error)
    return next(STATUS[base] for base in cls.__mro__ if base in STATUS)


def drop_frames(error: BaseException) -> None:
    """Forget where an error and its causes were raised, once it is told.

    The frames hold the whole request, and a frame that holds its own error is a cycle: a refused
    prompt of millions of tokens would stay until the collector looks at its generation.
    """
    pending: list[BaseException | None] = [error]
    seen = set[int]()
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            pending += [one.__cause__, one.__context__]


def error_class(name: str) -> type[PdError] | None:
    """Return the error class called `name`, or None; this is how typed errors cross the wire."""
    pending: list[type[PdError]] = [PdError]
    while pending:
        cls = pending.pop()
        if cls.__name__ == name:
            return cls
        pending.extend(cls.__subclasses__())
    return None
