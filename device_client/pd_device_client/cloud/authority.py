"""The authority whose certificates are trusted, from a PEM file of the user's."""

import ssl
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.files.text_file import decoded

__all__ = ["read_authority"]


def read_authority(path: Path) -> str:
    """Read a PEM file of certificates; gRPC itself only logs problems with it.

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--tls-ca {path} cannot be read ({error.strerror}); give a readable PEM file with the "
            "certificate of the authority to trust"
        ) from error
    try:
        content = decoded(raw)
    except ValueError:
        content = raw.decode("latin-1")  # comments in an old encoding, or no text at all
    # Certificates are ASCII; between them, bundles hold names of authorities in any language.
    content = content.encode("ascii", "replace").decode("ascii")
    try:
        ssl.create_default_context().load_verify_locations(cadata=content)
    except (ssl.SSLError, ValueError, TypeError) as error:  # the last for what is not ASCII
        raise ConfigError(
            f"--tls-ca {path} holds no certificate in PEM form; give the certificate of the "
            "cloud's authority, not its key"
        ) from error
    return content
