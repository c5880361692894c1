"""Text is read as editors and exports write it, and what is no text is refused in words."""

import codecs
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.files.text_file import decoded, read_text_file

TEXT = "a = 'é'\nb\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.replace("\n", "\r\n").encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_marks_encodings_and_line_ends_make_no_difference(tmp_path: Path, content: bytes) -> None:
    assert decoded(content) == TEXT
    (tmp_path / "file").write_bytes(content)
    assert read_text_file(tmp_path / "file") == TEXT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Grüße".encode("latin-1"), "byte 2 is not UTF-8"),
        (codecs.BOM_UTF16_LE + b"odd", "is not UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refused:
        read_text_file(tmp_path / "file")
    assert "Gr" not in str(refused.value)
    assert refused.value.__suppress_context__
