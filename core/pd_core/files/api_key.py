"""The bearer key: checked in the same way by every command that takes one."""

import stat
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.files.text_file import decoded
from pd_core.host.disk import has_permission_bits

__all__ = [
    "MAX_API_KEY_LENGTH",
    "checked_api_key",
    "chosen_api_key",
    "key_exposure",
    "read_api_key",
]

MAX_API_KEY_LENGTH = 4096
"""Characters; gRPC refuses calls with more than 8 KiB of metadata in all."""


_CONTAINER_SECRETS = Path("/run/secrets")


def key_exposure(path: Path) -> str:
    """Return a warning, with the fix, if users other than its owner can read a key file; else "".

    A folder on its path that others may not enter protects it, as deploy/make-secrets.sh makes one.
    The secrets folder of a container is exempt: it has no other users, and the host sets the modes.
    """
    if not has_permission_bits():
        return ""
    try:
        file = path.resolve(strict=True)
        others = file.stat().st_mode & stat.S_IROTH
        reached = all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents)
    except OSError:
        return ""  # reading it will say so
    if not others or not reached or _CONTAINER_SECRETS in (path.parent, *file.parents):
        return ""
    return f"every user of this machine can read the key file {path}: chmod 600 {path}"


def read_api_key(path: Path) -> str:
    """Read a key file: one line, printable ASCII without spaces.

    Raises:
        ConfigError: the file cannot be read or holds no such key. The key itself is never shown.
    """
    try:
        with path.open("rb") as file:
            # Bounded, whatever file it is, with room for white space around the longest key.
            text = decoded(file.read(8 * MAX_API_KEY_LENGTH))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the key file {path} cannot be read ({type(error).__name__}); give a readable text "
            "file with the key as its only line"
        ) from None  # the cause may hold the key
    return checked_api_key(text, f"the key file {path}")


def checked_api_key(text: str, source: str = "the API key") -> str:
    """Return the key in `text`, without surrounding white space, if it fits a header.

    Args:
        text: the key.
        source: where it comes from, for the message.

    Raises:
        ConfigError: it does not fit; the message names its source, not the key.
    """
    key = text.strip()
    if not key:
        raise ConfigError(f"{source} is empty; give the key as its only line, or leave it out")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"{source} holds no usable key; it must be one line of printable ASCII characters "
            "without spaces"
        )
    if len(key) > MAX_API_KEY_LENGTH:
        raise ConfigError(
            f"{source} holds a key of more than {MAX_API_KEY_LENGTH} characters, which does not "
            "fit a call's header; use a shorter one"
        )
    return key


def chosen_api_key(path: Path | None, text: str | None, variable: str) -> str | None:
    """Return the key in a file, or else in a variable; None if neither is given.

    Args:
        path: the file.
        text: the variable's value.
        variable: its name, for the message.

    Raises:
        ConfigError: the key cannot be read or used.
    """
    if path is not None:
        return read_api_key(path)
    return None if text is None else checked_api_key(text, variable)
