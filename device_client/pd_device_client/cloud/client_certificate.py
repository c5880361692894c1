"""The device's own certificate, for clouds that let in only clients that have one."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pd_core.errors import ConfigError
from pd_core.settings.option import Option

__all__ = ["ClientCertificate"]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Certificate chain and private key of this device, both PEM files.

    Raises:
        ConfigError: they cannot be read or do not belong together.
    """

    cert: Annotated[Path, Option("This device's PEM certificate chain.", "tls-client-cert")]
    key: Annotated[Path, Option("Its PEM private key.", "tls-client-key")]

    def __post_init__(self) -> None:
        self.give_to(ssl.create_default_context())

    def give_to(self, context: ssl.SSLContext) -> None:
        """Let a context show the certificate to servers that ask for it.

        Raises:
            ConfigError: the files cannot be read or do not belong together.
        """
        try:
            context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"--tls-client-cert {self.cert} and --tls-client-key {self.key} cannot be used "
                f"({reason}); give this device's PEM certificate chain and its unencrypted PEM key"
            ) from error

    def read(self) -> tuple[bytes, bytes]:
        """Return certificate chain and key, as PEM.

        Raises:
            ConfigError: they cannot be read any more.
        """
        try:
            return self.cert.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise ConfigError(f"the device's certificate cannot be read: {error}") from error
