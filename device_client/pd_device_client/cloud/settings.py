"""The user's settings for the cloud."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pd_core.files.api_key import chosen_api_key
from pd_core.settings.option import Option, Part, Secret
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.client_certificate import ClientCertificate
from pd_device_client.cloud.openai.services import APIS, AUTO

__all__ = ["CloudSettings"]


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """The cloud's address, the authority to trust, and the key to send."""

    target: Annotated[
        str | None,
        Option(
            "The cloud: HOST:PORT of a pd-server, or https://HOST/v1 of any OpenAI-compatible "
            "server; without one, all is local.",
            "cloud",
        ),
    ] = None
    model: Annotated[
        str | None,
        Option("The model to ask an OpenAI-compatible cloud for; its only one.", "cloud-model"),
    ] = None
    api: Annotated[
        str,
        Option("What an OpenAI-compatible cloud is; asked.", "cloud-api", choices=APIS),
    ] = AUTO
    tls_ca: Annotated[Path | None, Option("PEM file of the authority to trust.")] = None
    tls: Annotated[bool, Option("TLS with this system's authorities.")] = False
    api_key_file: Annotated[
        Path | None,
        Option("File with the cloud's bearer key; or the variable PD_DEVICE_API_KEY."),
    ] = None
    api_key: Annotated[str | None, Secret("api-key-file")] = field(default=None, repr=False)
    insecure: Annotated[bool, Option("Allow plaintext to a cloud on another machine.")] = False
    client: Annotated[ClientCertificate | None, Part()] = None

    def address(self) -> CloudAddress:
        """Return the settings as an address; its target is empty without a cloud.

        Raises:
            ConfigError: the key cannot be read or used.
        """
        key = chosen_api_key(self.api_key_file, self.api_key or None, "PD_DEVICE_API_KEY")
        return CloudAddress(
            self.target or "",
            self.tls_ca,
            self.tls,
            key,
            self.insecure,
            self.client,
            self.model,
            self.api,
        )
