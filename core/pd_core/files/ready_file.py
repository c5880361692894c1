"""The ready file, by which a server tells the process that started it that and where it serves."""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.files.atomic import part_file, replaced

__all__ = ["ReadyServer", "check_ready_file", "read_ready_file", "write_ready_file"]


@dataclass(frozen=True, slots=True)
class ReadyServer:
    """The content of a ready file.

    Attributes:
        address: gRPC "host:port"; "" for a device, which has none.
        http_address: "host:port" of the control plane or API.
        pid: the process's id.
    """

    address: str
    http_address: str
    pid: int


def check_ready_file(path: Path) -> None:
    """Check that the file can be written, leaving nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with part_file(path):
            pass
    except OSError as error:
        raise _refusal(path, error) from error


def write_ready_file(path: Path, **addresses: str) -> None:
    """Write addresses and this process's id; a reader sees the whole file or none.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with replaced(path, mode=0o600) as part:
            part.write_text(json.dumps(addresses | {"pid": os.getpid()}), encoding="utf-8")
    except OSError as error:
        raise _refusal(path, error) from error


def read_ready_file(path: Path) -> ReadyServer | None:
    """Return the file's content; None if it does not exist yet."""
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    return ReadyServer(told.get("grpc", ""), told["http"], told["pid"])


def _refusal(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--ready-file {path} cannot be written ({error.strerror}); give a file in a folder "
        "that exists and can be written"
    )
