"""Where a result goes: a file that is known to be writable before the measurement begins."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.atomic import part_file, put_in_place

__all__ = ["refuse_same_file", "result_file"]


def refuse_same_file(*named: tuple[str, Path | None]) -> None:
    """Refuse two names of one file: the later output would replace the earlier, or the input.

    Args:
        named: what each file is to the reader, and its path; without a path it is left out.

    Raises:
        ConfigError: two of them are one file.
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
    """Yield a function that writes the file; an older file stays as it is until then.

    The function takes text, bytes, or lines that are made while they are written.

    Args:
        path: of the file; its folder exists.
        option: by which the reader named it.

    Until it is whole the file has a name of its own in the same folder, so that two runs that
    write the same file at the same time both end with a whole one: the last one's stays.

    Raises:
        ConfigError: the file cannot be made there, or is a device or a pipe: found out on entry,
            not after the run. Or the disk is full, when it is written.
    """
    place = path.resolve()  # a link stays a link to the file that is written
    with ExitStack() as held:
        try:
            if place.is_dir():
                raise IsADirectoryError(0, "it is a directory")
            if path.exists() and not path.is_file():
                # To replace it by a file would take /dev/null from everybody.
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
