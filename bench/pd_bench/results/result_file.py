"""The file of a result, checked to be writable before the measurement begins."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.files.atomic import part_file, put_in_place

__all__ = ["refuse_same_file", "result_file"]


def refuse_same_file(*named: tuple[str, Path | None]) -> None:
    """Refuse two names of one file, since one output would replace another, or the input.

    Args:
        named: the user's name of each file, and its path; those without a path are ignored.

    Raises:
        ConfigError: two of them are the same file.
    """
    seen: dict[Path, str] = {}
    for what, path in named:
        if path is None:
            continue
        whole = path.resolve()
        if whole in seen:
            raise ConfigError(
                f"{seen[whole]} and {what} are one file, {path}, which would be overwritten; "
                "name another"
            )
        seen[whole] = what


@contextmanager
def result_file(
    path: Path, option: str = "--json"
) -> Iterator[Callable[[str | bytes | Iterable[str]], None]]:
    """Yield a function that writes the file; until then an older file is not changed.

    The function takes text, bytes, or lines generated while they are written.

    Args:
        path: the file, in an existing folder.
        option: the option that names it, for the message.

    Until it is complete the file has a different name in the same folder. So if two runs write the
    same file at the same time, it is complete in the end, and that of the last one.

    Raises:
        ConfigError: the file cannot be created there, or is a device or a pipe (raised on entry,
            not after the run), or the disk is full (raised when it is written).
    """
    place = path.resolve()  # so that a link stays a link
    with ExitStack() as held:
        try:
            if place.is_dir():
                raise IsADirectoryError(0, "it is a directory")
            if path.exists() and not path.is_file():
                # Otherwise /dev/null, for example, would be replaced with a file.
                raise OSError(0, "it is not a plain file")
            part = held.enter_context(part_file(place))
        except OSError as error:
            raise _cannot_write(path, option, error) from None

        def write(content: str | bytes | Iterable[str]) -> None:
            lines = [content] if isinstance(content, str | bytes) else content
            try:
                with part.open("wb") as file:
                    for line in lines:
                        file.write(line if isinstance(line, bytes) else f"{line}\n".encode())
                put_in_place(part, place, durable=True)
            except OSError as error:
                raise _cannot_write(path, option, error) from None

        yield write


def _cannot_write(path: Path, option: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"the result cannot be written to {path}: {error.strerror}; name another file with {option}"
    )
