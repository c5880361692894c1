"""Checks that a stream's messages arrive as the cloud sent them."""

from typing import TypeVar

from pd_core.errors import LinkCorrupted, PdError
from pd_core.generation import CloudEvent, Finished, RefinedPrompt, Start, Tokens
from pd_core.identity.stream_seal import StreamSeal
from pd_device_client.cloud.convert import event_from_pb
from pd_proto.v1 import generation_pb2 as pb

__all__ = ["SealCheck", "readable"]

M = TypeVar("M", pb.GenerateResponse, pb.GetServerInfoResponse)


def readable(message: object, kind: type[M]) -> M:
    """Return a message as gRPC gives it, which for bytes that are none is None.

    Raises:
        LinkCorrupted: it cannot be read.
    """
    if not isinstance(message, kind):
        raise _corrupted()
    return message


class SealCheck:
    """Turns one stream's messages into events, as long as their seals are right.

    Args:
        start: what opened the stream.
        sealed: whether the cloud has said that it seals; then a missing seal is a changed message.
    """

    def __init__(self, start: Start, *, sealed: bool) -> None:
        self._seal = StreamSeal(start)
        self._sealed = sealed

    def event(self, message: pb.GenerateResponse) -> CloudEvent:
        """Return the next message's event.

        Raises:
            LinkCorrupted: the message, an earlier one or the Start was changed on its way.
            ProtocolError: as `event_from_pb`.
        """
        event = event_from_pb(message)
        match event:
            case Tokens():
                self._check(message.tokens, self._seal.after_tokens(event))
            case Finished():
                self._check(message.finished, self._seal.after_finished(event))
            case RefinedPrompt():
                self._check(message.refined_prompt, self._seal.after_refined(event))
        return event

    def _check(self, message: pb.Tokens | pb.Finished | pb.RefinedPrompt, expected: int) -> None:
        given = message.seal if message.HasField("seal") else None
        if given != expected and (given is not None or self._sealed):
            raise _corrupted()


def _corrupted() -> PdError:
    return LinkCorrupted(
        "a message of the cloud did not arrive as it was sent; if this goes on, use TLS (--tls-ca) "
        "and have the network or the memory of both machines checked"
    )
