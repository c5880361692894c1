"""A stranger's tokenizer.json is read by a child process first, once on each machine.

Reading one can take minutes, all memory, or the process with it: it may hold rules that make a text
longer and longer. Only a child process can be stopped then. What was read well is remembered, so
that later starts need no child, and the shipped tokenizer never does.
"""

import hashlib
from functools import cache

import tokenizers

from pd_core.errors import EngineError, ModelError
from pd_core.files.kept_results import keep, kept
from pd_core.process.walled_process import WalledProcess
from pd_core.store.model_names import DEFAULT_MODEL, model_directory

__all__ = ["try_out"]

_WITHIN_S = 30.0
_MOST_REPLY_BYTES = 1 << 16
_KIND = "tokenizers"


def try_out(content: str, *, within_s: float = _WITHIN_S) -> None:
    """Return if a tokenizer.json can be read within bounds on time and memory.

    Args:
        content: the file's content.
        within_s: seconds that reading may take.

    Raises:
        ModelError: it cannot; the message says why.
    """
    digest = hashlib.sha256(content.encode()).hexdigest()
    key = [digest, tokenizers.__version__]
    if digest == _shipped_digest() or kept(_KIND, key) is True:
        return
    process = None
    try:
        process = WalledProcess("pd_core.text.tokenizer_program", "main", _MOST_REPLY_BYTES)
        reply = process.ask({"tokenizer": content}, within_s)
    except EngineError as error:
        raise ModelError(f"a tokenizer is checked in a process of its own: {error}") from error
    except TimeoutError as error:
        raise ModelError(
            f"it takes more than {within_s:g} s to be read, as no model's tokenizer does; get the "
            "file again from where the model is from, or use another model"
        ) from error
    except ConnectionError as error:
        raise ModelError(
            "reading it takes too much memory or ends the process that reads it; get the file "
            "again from where the model is from, or use another model"
        ) from error
    finally:
        if process is not None:
            process.end()
    if "refused" in reply:
        raise ModelError(reply["refused"])
    keep(_KIND, key, True)


@cache
def _shipped_digest() -> str:
    try:
        file = model_directory(DEFAULT_MODEL) / "tokenizer.json"
    except ModelError:  # this installation is not whole, and whoever asks for the model is told
        return ""
    return hashlib.sha256(file.read_bytes()).hexdigest()
