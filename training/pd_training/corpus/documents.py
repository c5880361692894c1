"""A corpus as documents: text files, folders of them, JSONL and parquet.

A text file is one document, and so is a row of JSONL or parquet (its "text" field). Every error
names the file and the line or row. A file is read only once, even if several links lead to it.
"""

import fnmatch
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pd_core.errors import ConfigError

__all__ = ["TEXT_SUFFIXES", "Document", "corpus_files", "read_documents"]

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
_ROW_SUFFIXES = (".jsonl", ".parquet")
_PARQUET_BATCH_ROWS = 256
# JSON can contain one as an escape; tokenizers cannot encode it.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        source: the file, with the line or row if it holds many documents.
    """

    source: str
    text: str


def corpus_files(paths: Sequence[Path], exclude: Sequence[str] = ()) -> list[Path]:
    """Return a corpus's files: resolved, each once, sorted by path.

    Args:
        paths: files, with any name, and folders, searched at any depth for files with a known
            suffix; links are followed.
        exclude: patterns such as "*/test/*", matched against whole paths as found in a folder.

    Raises:
        ConfigError: a path does not exist, or nothing is left.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found |= {
                file.resolve()
                for file in _walk(path)
                if not any(fnmatch.fnmatch(file.as_posix(), pattern) for pattern in exclude)
            }
        elif path.is_file():
            found.add(path.resolve())
        elif path.exists():
            raise ConfigError(f"the corpus {path} is neither a file nor a folder; give those")
        else:
            raise ConfigError(f"the corpus {path} does not exist; give files or folders")
    if not found:
        raise ConfigError(
            f"the corpus {', '.join(map(str, paths))} is empty: no file ends in "
            f"{', '.join(TEXT_SUFFIXES + _ROW_SUFFIXES)}"
        )
    return sorted(found)


def read_documents(files: Sequence[Path]) -> Iterator[Document]:
    """Yield the documents of files, in order; empty texts are skipped.

    Raises:
        ConfigError: a file cannot be read; the message names the line or row.
    """
    for file in files:
        if file.suffix == ".jsonl":
            documents = _jsonl(file)
        elif file.suffix == ".parquet":
            documents = _parquet(file)
        else:
            documents = iter([Document(str(file), _decoded(file, _content(file)))])
        yield from (document for document in documents if document.text)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files with a known suffix below a folder; one reached again by a link is skipped."""
    visited: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in names:
            file = Path(parent) / name
            if file.suffix in TEXT_SUFFIXES + _ROW_SUFFIXES and file.is_file():
                yield file


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _decoded(file: Path, content: bytes, first_line: int = 1) -> str:
    try:
        return content.decode("utf-8-sig" if first_line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        raise ConfigError(
            f"{file}, line {line}: not UTF-8 ({error.reason}); convert the file or exclude it"
        ) from error


def _text_of(row: Any, place: str) -> str:
    """Return a row's text field."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ConfigError(f'{place}: no "text" field with a string in it; mend or remove the row')
    text: str = row["text"]
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise ConfigError(
            f"{place}: the text holds half a surrogate pair, which no UTF-8 can; mend or remove "
            "the row"
        )
    return text


def _jsonl(file: Path) -> Iterator[Document]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                place = f"{file}, line {number}"
                try:
                    row = json.loads(_decoded(file, line, number)) if line.strip() else None
                    if row is not None or line.strip():
                        yield Document(place, _text_of(row, place))
                except (ValueError, RecursionError) as error:
                    raise ConfigError(f"{place}: not JSON ({error})") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _parquet(file: Path) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(f"{file}: parquet needs pyarrow; install pd-device[train]") from error
    row = 0
    try:
        with parquet.ParquetFile(file) as opened:
            if "text" not in opened.schema_arrow.names:
                raise ConfigError(f'{file}: no column "text"; it has {opened.schema_arrow.names}')
            for batch in opened.iter_batches(_PARQUET_BATCH_ROWS, columns=["text"]):
                for cell in batch.column(0):
                    place = f"{file}, row {row}"
                    try:
                        value = cell.as_py()
                    except UnicodeDecodeError as error:
                        raise ConfigError(
                            f"{place}: not UTF-8 ({error.reason}); mend or remove the row"
                        ) from error
                    yield Document(place, _text_of({"text": value}, place))
                    row += 1
    except (ArrowException, OSError) as error:
        raise ConfigError(
            f"{file}, from row {row} on: not readable as parquet ({error})"
        ) from error
