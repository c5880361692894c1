"""Pulled models: their names, checking them, and removing them."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pd_core.errors import ConfigError, ModelError
from pd_core.store.manifest import read_manifest
from pd_core.store.model_store import (
    ROOT_VARIABLE,
    PulledName,
    find_pulled,
    partial_folder,
    pulled_folder,
)

__all__ = ["differences", "partial_bytes", "pulled_name", "remove", "sole_use"]

_READ_BYTES = 1 << 20


def pulled_name(spec: str) -> PulledName:
    """Parse a model's name.

    Raises:
        ModelError: it is not a hub's model name.
    """
    name = PulledName.parse(spec)
    if name is None:
        raise ModelError(
            f"{spec!r} is no model's name; give OWNER/MODEL or OWNER/MODEL@REVISION, as the end of "
            "its page's address has it (a directory or file on this machine is not pulled: give a "
            "model's directory to --model)"
        )
    return name


@contextmanager
def sole_use(name: PulledName) -> Iterator[None]:
    """Lock a model's partial folder against other processes.

    Raises:
        ConfigError: another process holds it, or the folder cannot be used.
    """
    folder = partial_folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            try:
                yield
            finally:
                # An empty folder has nothing to resume from.
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    except Timeout as error:
        raise ConfigError(f"another process is pulling {name}; wait for it, or end it") from error
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder} cannot be used for models ({error.strerror}); name "
            f"another folder with the variable {ROOT_VARIABLE}"
        ) from error


def differences(name: PulledName, read: Callable[[int, int], None]) -> list[str]:
    """Compare a model's files with its manifest; return what differs, in words.

    Args:
        name: the model.
        read: called with (bytes read, bytes in all).

    Raises:
        ModelError: it was not pulled, or its manifest cannot be read.
    """
    manifest = read_manifest(name)
    folder, before, found = pulled_folder(name), 0, []

    def count(size_bytes: int) -> None:
        read(before + size_bytes, manifest.size_bytes)

    for file, pulled in manifest.files.items():
        path = folder / file
        size_bytes = path.stat().st_size if path.is_file() else None
        if size_bytes is None:
            found.append(f"{file} is missing")
        elif size_bytes != pulled.size_bytes:
            found.append(f"{file} has {size_bytes} bytes instead of {pulled.size_bytes}")
        elif _sha256(path, count) != pulled.sha256:
            found.append(f"{file} has other bytes than those that were pulled")
        before += pulled.size_bytes
    return found


def partial_bytes(name: PulledName) -> int:
    """Return the number of bytes received of an incomplete model."""
    folder = partial_folder(name)
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def remove(name: PulledName) -> int:
    """Remove a model and any incomplete pull of it; return the number of bytes freed.

    Raises:
        ModelError: there is no such model.
        ConfigError: it is being pulled, or cannot be removed.
    """
    if find_pulled(name) is None and not partial_folder(name).is_dir():
        raise ModelError(f"there is no model {name} to remove; see: pd-device models list")
    with sole_use(name):
        freed = 0
        for folder in (pulled_folder(name), partial_folder(name)):
            if folder.is_dir():
                freed += sum(path.stat().st_size for path in folder.iterdir())
                shutil.rmtree(folder)
        owner = pulled_folder(name).parent
        if owner.is_dir() and not any(owner.iterdir()):
            owner.rmdir()
    return freed


def _sha256(path: Path, read: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while part := opened.read(_READ_BYTES):
            digest.update(part)
            read(opened.tell())
    return digest.hexdigest()
