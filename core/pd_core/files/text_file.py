"""Text as people's editors and exports write it: byte order marks, UTF-16, other line ends."""

import codecs
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["decoded", "read_text_file"]

# The mark of UTF-32 begins with that of UTF-16, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(content: bytes) -> str:
    r"""Return bytes as text without its byte order mark, with \n as line end.

    A mark names the encoding; without one it is UTF-8.

    Raises:
        ValueError: the bytes are not in that encoding; the message shows none of them.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} is not {encoding.removesuffix('-sig').upper()}; save it as UTF-8"
        ) from None  # the cause holds the bytes, which may be secret
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text_file(path: Path) -> str:
    """Return a file's text, as `decoded` does.

    Raises:
        OSError: it cannot be read.
        ConfigError: it is not text.
    """
    try:
        return decoded(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not text: {error}") from None
