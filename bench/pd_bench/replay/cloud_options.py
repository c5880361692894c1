"""The options that name a server to measure instead of our own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pd_core.files.api_key import read_api_key
from pd_core.settings.option import Option
from pd_device_client.cloud.address import CloudAddress

__all__ = ["ApiKeyFile", "CloudOptions", "Insecure"]

ApiKeyFile = Annotated[Path | None, Option("File with the key.")]
Insecure = Annotated[bool, Option("Plaintext beyond this machine.")]


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """The server's address, the authority to trust, and the key to send."""

    target: Annotated[
        str | None,
        Option(
            "HOST:PORT of a server to use, not our own, or the URL of an OpenAI-compatible one.",
            "cloud",
        ),
    ] = None
    model: Annotated[
        str | None,
        Option("The model to ask an OpenAI-compatible --cloud for; its only one.", "cloud-model"),
    ] = None
    tls_ca: Annotated[Path | None, Option("Authority to trust for --cloud.")] = None
    tls: Annotated[bool, Option("TLS to --cloud, by the system's authorities.")] = False
    api_key_file: ApiKeyFile = None
    insecure: Insecure = False

    def address(self) -> CloudAddress | None:
        """Return the options as an address; None without a server.

        Raises:
            ConfigError: the key cannot be read or used.
        """
        if self.target is None:
            return None
        key = None if self.api_key_file is None else read_api_key(self.api_key_file)
        return CloudAddress(
            self.target, self.tls_ca, self.tls, key, self.insecure, model=self.model
        )
