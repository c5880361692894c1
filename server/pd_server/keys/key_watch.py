"""Takes changed keys into use without a restart."""

import asyncio
import logging
from collections.abc import Callable

from pd_core.errors import ConfigError
from pd_server.keys.key_file import NamedKey
from pd_server.keys.keyring import Keyring

__all__ = ["watch_keys"]

logger = logging.getLogger(__name__)

_LOOK_S = 5.0


async def watch_keys(
    keyring: Keyring, read: Callable[[], tuple[NamedKey, ...]], every_s: float = _LOOK_S
) -> None:
    """Read the keys again and again until cancelled; files that cannot be used change nothing.

    Args:
        keyring: takes the keys when they differ from those before.
        read: reads them; called in a worker thread.
        every_s: seconds between two looks.
    """
    known: tuple[NamedKey, ...] | None = None
    complaint = ""
    while True:
        try:
            found = await asyncio.to_thread(read)
        except ConfigError as error:
            if str(error) != complaint:
                logger.error("the keys stay as they are: %s", error)
            complaint = str(error)
        else:
            complaint = ""
            if known is not None and found != known:
                keyring.replace(found)
                logger.info("the keys have changed; there are now %s", ", ".join(keyring.names))
            known = found
        await asyncio.sleep(every_s)
