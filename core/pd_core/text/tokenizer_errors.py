"""What the `tokenizers` library raises, as our errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

from pd_core.errors import PdError

__all__ = ["our_errors"]

# Rust's way to end a program. It is no Exception, and its class can be imported from nowhere.
_PANIC = "PanicException"
_MOST_CHARACTERS = 300


@contextmanager
def our_errors(kind: type[PdError], what: str) -> Iterator[None]:
    """Raise whatever the library raises, its panics too, as an error of ours.

    Args:
        kind: the error's class.
        what: what failed, the beginning of the message.
    """
    try:
        yield
    except BaseException as error:
        is_panic = type(error).__name__ == _PANIC
        if isinstance(error, kind) or not (isinstance(error, Exception) or is_panic):
            raise
        reason = shorten(str(error) or type(error).__name__, _MOST_CHARACTERS, placeholder=" ...")
        raise kind(f"{what}: {reason}") from error
