"""Where a device listens, and the key that clients must send."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.files.api_key import chosen_api_key
from pd_core.settings.option import Option, Secret
from pd_core.sockets.loopback import is_loopback

__all__ = ["Door"]


@dataclass(frozen=True, slots=True)
class Door:
    """An address to listen on, and who may use it."""

    host: Annotated[str, Option("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 8088
    client_key_file: Annotated[
        Path | None,
        Option("File with the bearer key clients must send; or PD_DEVICE_CLIENT_KEY."),
    ] = None
    client_key: Annotated[str | None, Secret("client-key-file")] = field(default=None, repr=False)
    insecure: Annotated[
        bool, Option("Listen beyond this machine without a key.", "insecure-listen")
    ] = False

    def key(self) -> str | None:
        """Return the key that clients must send; None: no key.

        Raises:
            ConfigError: it cannot be read or used, or it is missing although other machines could
                use this device.
        """
        key = chosen_api_key(self.client_key_file, self.client_key or None, "PD_DEVICE_CLIENT_KEY")
        if not is_loopback(self.host) and key is None and not self.insecure:
            raise ConfigError(
                f"--host {self.host} lets other machines use this device; give a key that clients "
                "must send (--client-key-file), or --insecure-listen by name"
            )
        return key
