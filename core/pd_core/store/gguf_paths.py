"""Whether a path names a model in GGUF, llama.cpp's format, by its name alone."""

import os
from itertools import islice
from pathlib import Path

__all__ = ["gguf_files", "gguf_of"]

SUFFIX = ".gguf"
_MOST_ENTRIES = 10_000  # of a folder that are looked at


def gguf_of(path: Path) -> Path | None:
    """Return the GGUF file that a path names: itself, or the only one of a directory; else None.

    A directory with safetensors files is a Hugging Face directory.
    """
    if path.is_file():
        return path if path.suffix.lower() == SUFFIX else None
    found = gguf_files(path)
    if len(found) != 1 or any(path.glob("*.safetensors")):
        return None
    return path / found[0]


def gguf_files(directory: Path) -> list[str]:
    """Return the names of a directory's GGUF files, sorted; none of one that cannot be read."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except (OSError, ValueError):  # a path may hold a zero byte
        return []
    return sorted(name for name in names if name.lower().endswith(SUFFIX))
