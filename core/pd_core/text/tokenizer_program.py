"""The child process that reads a stranger's tokenizer.json first; `tokenizer_trial` is its parent.

A request is {"tokenizer": its content}. A reply is {}, or {"refused": the reason}.
"""

import os
from typing import Any

from pd_core.errors import ModelError
from pd_core.process.behind_wall import serve_behind_wall
from pd_core.text.tokenizer import Tokenizer

__all__ = ["MEMORY_BYTES", "main"]

MEMORY_BYTES = 2 << 30
_ORPHAN_S = 60.0


def main() -> None:
    """Answer requests until the parent is gone."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # behind the wall no thread can be started
    serve_behind_wall(_answer, memory_bytes=MEMORY_BYTES, within_s=_ORPHAN_S, most_kept_bytes=0)


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        Tokenizer.from_str(request["tokenizer"])
    except ModelError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": f"it needs more than {MEMORY_BYTES >> 30} GiB of memory"}
    return {}
