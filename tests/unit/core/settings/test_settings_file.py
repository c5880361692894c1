"""A settings file as editors write it, or as nobody should."""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from pd_core.errors import ConfigError
from pd_core.settings.option import Option
from pd_core.settings.program import Program
from pd_core.settings.settings_file import file_values


@dataclass(frozen=True, slots=True)
class _Settings:
    name: Annotated[str, Option("A name.")] = ""
    place: Annotated[Path, Option("A place.")] = Path()


PROGRAM = Program("pd-test", {"run": _Settings})
TEXT = 'name = "Grüße"\r\n[run]\r\nplace = "~/there"\r\n'


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_byte_order_marks_and_line_ends_are_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("HOME", "/srv/someone")
    (tmp_path / "config.toml").write_bytes(content)
    values = file_values(PROGRAM, "run", tmp_path / "config.toml")
    assert values == {"name": "Grüße", "place": Path("/srv/someone/there")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name = " + b"[" * 30_000, "nested too deeply"),
        (b".".join([b"a"] * 40_000) + b" = 1", "more than 65536 bytes"),
        ("name = 'Grüße'".encode("latin-1"), "is not text: byte 10 is not UTF-8; save it as UTF-8"),
        (b"name = ", "is not TOML"),
    ],
)
def test_what_is_no_settings_file_is_refused_in_words(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        file_values(PROGRAM, "run", tmp_path / "config.toml")
