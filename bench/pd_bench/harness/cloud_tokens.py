"""The tokens of one stream, straight from a server, without a device."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pd_core.errors import CloudUnavailable
from pd_core.generation import Finished, Start, Tokens
from pd_device_client.contract.ports import CloudLink

__all__ = ["cloud_tokens"]


async def cloud_tokens(link: CloudLink, start: Start) -> AsyncGenerator[Tokens, None]:
    """Yield a stream's tokens until Finished; leaving it earlier cancels the stream.

    It does not wait for the end of the call, which a server keeps open for a second for messages
    that cross its last one.

    Raises:
        CloudUnavailable: the stream ended without Finished.
        PdError: as the link raises it.
    """
    stream = await link.open(start)
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    yield event
                elif isinstance(event, Finished):
                    return
        raise CloudUnavailable("the server ended a stream without Finished")
    finally:
        stream.cancel()
