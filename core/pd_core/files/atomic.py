"""Folders that appear complete or not at all, and files that are replaced in one step."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from pd_core.errors import ConfigError
from pd_core.host.disk import force_to_disk

__all__ = [
    "clear_leftovers",
    "is_leftover",
    "new_folder",
    "ordinary_file",
    "part_file",
    "put_in_place",
    "replace_text",
    "replaced",
]


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is renamed to `path` when the block ends.

    Everything is on the disk before the rename, so that `path` is complete if it exists, even
    after a power cut. If the block fails (a full disk, Ctrl-C), the temporary folder is removed and
    nothing else has changed.

    Raises:
        ConfigError: `path` exists and is not an empty folder, or the disk refuses.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} exists already; name another place, or remove it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():  # safetensors makes its files readable only by the owner
                file.chmod(temporary.stat().st_mode & 0o666)
            force_to_disk(file)
        force_to_disk(temporary)
        if path.is_dir():
            path.rmdir()
        temporary.rename(path)
        force_to_disk(path.parent)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors says "disk full"
        raise ConfigError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}; nothing was "
            "replaced. Free some space or choose another place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def part_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield a new empty file beside `path`, for `put_in_place`; it is removed at the end.

    Two processes that write the same file get different part files.

    Args:
        path: the file it will become.
        mode: its permissions, less the umask.

    Raises:
        OSError: it cannot be created there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    part.touch(mode, exist_ok=False)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def put_in_place(part: Path, path: Path, *, durable: bool) -> None:
    """Rename a complete part file in one step: a reader sees the old file or all of the new one.

    Args:
        part: the part file.
        path: its new name.
        durable: first force the content to disk, so that one of the two survives a power cut.

    Raises:
        OSError: the disk refuses; `path` is as it was.
    """
    if durable:
        force_to_disk(part)
    part.replace(path)


@contextlib.contextmanager
def replaced(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[Path]:
    """Yield an empty file that replaces `path` if the block succeeds.

    Args:
        path: the file to replace, which need not exist.
        mode: as for `part_file`.
        durable: as for `put_in_place`.

    Raises:
        OSError: the disk refuses; `path` is as it was.
    """
    with part_file(path, mode=mode) as part:
        yield part
        put_in_place(part, path, durable=durable)


def ordinary_file(path: Path) -> Path:
    """Check, before computing its content, that a file can be written; return its resolved path.

    Raises:
        ConfigError: the path is not an ordinary file, or its folder does not exist.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle; the class is Python's choice
        raise ConfigError(f"{path} cannot be written: {error}; name another place") from error
    if real.exists() and not real.is_file():
        raise ConfigError(f"{path} is there and is no ordinary file; name another place")
    if not real.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: {real.parent} is not a folder; make it first")
    return real


def replace_text(path: Path, text: str) -> None:
    """Write a file in one step: on a full disk, or if the process is killed, the old one stays.

    Raises:
        ConfigError: the path is not an ordinary file, or the disk refuses.
    """
    path = ordinary_file(path)
    try:
        with replaced(path, durable=True) as part:
            part.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; nothing was replaced. Free some space or "
            "choose another place"
        ) from error


def is_leftover(path: Path) -> bool:
    """Return whether a file or folder was left half written by a killed process."""
    return path.name.startswith(".") and path.name.endswith(".part")


def clear_leftovers(directory: Path) -> None:
    """Remove what killed processes left half written in a folder, which need not exist.

    Raises:
        OSError: the disk refuses.
    """
    for path in filter(is_leftover, directory.glob(".*.part")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
