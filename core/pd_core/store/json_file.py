"""Reading the text files of a model directory, none larger than it can need to be."""

import json
from pathlib import Path
from typing import Any

from pd_core.errors import ModelError
from pd_core.store.mistaken_models import refuse_pointer

__all__ = ["MOST_JSON_BYTES", "read_json", "read_text"]

MOST_JSON_BYTES = 32 << 20
"""The index of a very large model has 15 MB; Python needs up to thirty times a file's size."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file is missing, too large or not a JSON object.
    """
    try:
        content = json.loads(read_text(path, MOST_JSON_BYTES))
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; a model directory needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def read_text(path: Path, most_bytes: int) -> str:
    """Read a UTF-8 file, without the byte order mark that some editors put before it.

    Raises:
        ModelError: it is larger than any such file of a model is, and the rest was not read; or it
            is only Git LFS's pointer to the file.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with path.open(encoding="utf-8-sig") as opened:
        content = opened.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ModelError(
            f"{path} is larger than {most_bytes >> 20} MiB, as no such file of a model is; get it "
            "again from where the model is from"
        )
    refuse_pointer(path, content[:100].encode())
    return content
